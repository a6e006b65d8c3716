package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"stasis.example/internal/rpctable"
	"stasis.example/internal/testkit"
)

// A deviation is a difference from the reference that is there on purpose. Each is in libcriu/README.md, by its name
// and with its reason; the test fails for one that is not, and for one that no case shows.
type deviation struct {
	name  string
	cases *regexp.Regexp
	// rewrite turns a line of the reference's into what is expected instead. Lines that it leaves alone have to be equal.
	rewrite func(name, line string) string
}

func replace(old, with string) func(name, line string) string {
	return func(_, line string) string { return strings.ReplaceAll(line, old, with) }
}

func subst(pattern, with string) func(name, line string) string {
	re := regexp.MustCompile(pattern)
	return func(_, line string) string { return re.ReplaceAllString(line, with) }
}

func deviations() []deviation {
	return []deviation{
		{"timeout-is-sent", regexp.MustCompile(`_set_timeout `), withTimeout},
		{"page-server-returns-0", regexp.MustCompile(`set_page_server_address_port`), replace("ret -12", "ret 0")},
		{"eintr-is-retried", regexp.MustCompile(`interrupted by a signal handler`), replace("ret -70 errno 4", "ret 0 errno 0")},
		{"no-zombie-after-self-dump", regexp.MustCompile(`^dump-self bin`), replace("children 1", "children 0")},
		{"self-dump-keeps-directory", regexp.MustCompile(`^dump-self bin`), replace("peer cwd other", "peer cwd of the caller")},
		{"bad-arguments-are-einval", regexp.MustCompile(`^misuse: negative argc`), replace("ret -12", "ret -22")},
		{"features-of-4.3", regexp.MustCompile(`^features, struct of 4`), fourFeatures},
		{"no-binary-has-its-errno", regexp.MustCompile(`^connect: (no such|empty) binary`),
			subst(`ret -70 errno (104|32)`, "ret -70 errno 2")},
		{"no-binary-has-its-errno", regexp.MustCompile(`^connect: binary not executable`),
			subst(`ret -70 errno (104|32)`, "ret -70 errno 13")},
		{"long-address-has-its-errno", regexp.MustCompile(`^connect: address (too long|of 108)`),
			replace("ret -111 errno 0", "ret -111 errno 36")},
		{"no-stale-errno", regexp.MustCompile(`.`), replace("ret -70 errno 77", "ret -70 errno 0")},
		{"surplus-descriptors-are-closed", regexp.MustCompile(`two descriptors$`), replace("descriptors +1", "descriptors +0")},
		{"restore-child-changes-no-option", regexp.MustCompile(`^restore after restore_child`), siblingOnce()},
		{"restore-child-waits-for-its-peer", regexp.MustCompile(`^restore_child after a service`), replace("children 1", "children 0")},
	}
}

// fourFeatures is what the reference would print if it knew the fourth feature, as the next version does.
func fourFeatures(_, line string) string {
	switch {
	case strings.HasPrefix(line, "  features 01 00 01 aa"):
		return "  features 01 01 00 00 aa aa aa aa"
	case line == "  features ret -1 errno 0":
		return "  features ret 0 errno 0"
	case strings.HasPrefix(line, "  left: descriptors +1"):
		return strings.Replace(line, "+1", "+0", 1) + "\n  req 0809120b08ffffffffffffffffff012a06080118012001"
	}
	return line
}

// siblingOnce takes rst_sibling out of the second request.
func siblingOnce() func(name, line string) string {
	n := 0
	return func(_, line string) string {
		if !strings.HasPrefix(line, "  req 0802") {
			return line
		}
		if n++; n < 2 {
			return line
		}
		line = strings.Replace(line, "d00101", "", 1)
		return strings.Replace(line, "  req 0802120e", "  req 0802120b", 1)
	}
}

// TestCompatibility runs one binary with Debian's library and with ours and compares all that they do.
func TestCompatibility(t *testing.T) {
	testkit.Need(t, testkit.Root) // a socket buffer above the limit
	lib := library(t)
	type reference struct{ dir, version string }
	references := []reference{{"criu", "4.2.1"}, {"criu-trixie", "4.1.1"}}
	// Debian has 4.3 in experimental only, which is not among what make tools installs.
	if _, err := os.Stat(filepath.Join(testkit.SourceRoot(), ".tools", "criu-experimental")); err == nil {
		references = append(references, reference{"criu-experimental", "4.3"})
	}
	for _, ref := range references {
		t.Run(ref.version, func(t *testing.T) {
			prefix := testkit.ToolPath(t, ref.dir)
			driver := compatDriver(t, prefix, ref.version)
			libdir := filepath.Join(prefix, "libcriu")
			if got := strings.TrimSpace(runDriver(t, driver, libdir, "version")); got != ref.version {
				t.Fatalf("the reference is libcriu %s, not %s", got, ref.version)
			}
			theirs, ours := parseCases(runDriver(t, driver, libdir)), parseCases(runDriver(t, driver, lib))
			compare(t, theirs, ours)
		})
	}
}

func compatDriver(t *testing.T, prefix, version string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "setters.inc"), []byte(setterCases(version)), 0o644))
	out := filepath.Join(dir, "driver")
	run(t, command(t, "gcc", slices.Concat([]string{"-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-O0", "-I" + filepath.Join(prefix, "include", "criu"),
		"-I" + filepath.Join(prefix, "include"), "-I" + dir, "-o", out}, parts(t, "driver.c"),
		[]string{"-L" + filepath.Join(prefix, "libcriu"), "-Wl,-rpath-link," + filepath.Join(prefix, "libcriu"), "-lcriu"})...))
	// The default binary is "criu", looked up in PATH.
	must(t, os.Symlink(out, filepath.Join(dir, "criu")))
	must(t, os.Symlink(out, filepath.Join(dir, "other-criu")))
	return out
}

// parts returns the files of testdata that a program is made of: name.c, and name_*.c if it has several.
func parts(t testing.TB, name string) []string {
	t.Helper()
	main := filepath.Join("testdata", name)
	others, err := filepath.Glob(strings.TrimSuffix(main, ".c") + "_*.c")
	must(t, err)
	return append(others, main)
}

func runDriver(t *testing.T, driver, libdir string, args ...string) string {
	t.Helper()
	return run(t, with(command(t, driver, append([]string{t.TempDir()}, args...)...), libraryPath(libdir),
		"PATH="+filepath.Dir(driver)))
}

// caseLines are the lines that a case printed.
type caseLines struct {
	name  string
	lines []string
}

func parseCases(output string) []caseLines {
	var cases []caseLines
	for line := range strings.Lines(output) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "case "); ok {
			cases = append(cases, caseLines{name: name})
			continue
		}
		last := &cases[len(cases)-1]
		last.lines = append(last.lines, line)
	}
	return cases
}

func compare(t *testing.T, theirs, ours []caseLines) {
	t.Helper()
	if len(theirs) != len(ours) {
		t.Fatalf("%d cases with the reference, %d with ours", len(theirs), len(ours))
	}
	seen := map[string]int{}
	requests, crashes, failures := 0, 0, 0
	for i, ref := range theirs {
		got := ours[i]
		if crashed(got) {
			t.Errorf("%s: crashed:\n%s", got.name, strings.Join(got.lines, "\n"))
			continue
		}
		if crashed(ref) {
			crashes++
			continue
		}
		want := slices.Clone(ref.lines)
		for _, d := range deviations() {
			if !d.cases.MatchString(ref.name) {
				continue
			}
			for j, line := range want {
				want[j] = d.rewrite(ref.name, line)
				if want[j] != line {
					seen[d.name]++
				}
			}
			want = strings.Split(strings.Join(want, "\n"), "\n")
		}
		for _, line := range want {
			if strings.HasPrefix(line, "  req") {
				requests++
			}
		}
		if !slices.Equal(got.lines, want) {
			if failures++; failures <= 20 {
				t.Errorf("%s\n reference:\n%s\n ours:\n%s", ref.name, strings.Join(shorten(ref.lines), "\n"),
					strings.Join(shorten(got.lines), "\n"))
			}
		}
	}
	if failures > 20 {
		t.Errorf("%d cases differ", failures)
	}
	readme, err := os.ReadFile(filepath.Join(source(), "README.md"))
	must(t, err)
	for _, d := range deviations() {
		if !strings.Contains(string(readme), "`"+d.name+"`") {
			t.Errorf("README.md does not list the deviation %s", d.name)
		}
	}
	t.Logf("%d cases, %d requests byte for byte; the reference crashed in %d, ours in none; deviations met: %v",
		len(theirs), requests, crashes, seen)
}

func crashed(c caseLines) bool {
	return slices.ContainsFunc(c.lines, func(l string) bool { return strings.HasPrefix(l, "  signal ") })
}

func shorten(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		if len(l) > 400 {
			l = l[:400] + "…"
		}
		out[i] = l
	}
	return out
}

// withTimeout puts the field that the reference never sends into its request: opts is images_dir_fd = -1 alone there.
func withTimeout(name, line string) string {
	m := regexp.MustCompile(`_set_timeout (?:\d+, )?(\d+)$`).FindStringSubmatch(name)
	request, ok := strings.CutPrefix(line, "  req 080a120b08ffffffffffffffffff01")
	if m == nil || !ok || request != "" {
		return line
	}
	v, err := strconv.ParseUint(m[1], 10, 32)
	if err != nil {
		return line
	}
	field := "e802" + fmt.Sprintf("%x", appendVarint(nil, v))
	return fmt.Sprintf("  req 080a12%02x08ffffffffffffffffff01%s", 11+len(field)/2, field)
}

func appendVarint(b []byte, v uint64) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// setterCases writes a case for every plain setter that libcriu has in the version, in both forms and with the values
// at the edges of its type.
func setterCases(version string) string {
	var b strings.Builder
	for _, row := range rpctable.Options() {
		number := row.Kind != rpctable.Message && row.Kind != rpctable.String // compression: written by hand, but called as any
		if row.CForm == rpctable.CNone || row.CForm == rpctable.CCustom && !number || row.C == "set_notify_cb" || row.CSince == "" || newer(row.CSince, version) {
			continue
		}
		for _, local := range []bool{true, false} {
			if !local && row.CForm == rpctable.CUpsert && newer("4.3", version) {
				continue // had no global form
			}
			if !local && row.Name == "cgroup_dump_controller" && newer("4.3", version) {
				continue
			}
			name, opts := "criu_"+row.C, ""
			if local {
				name, opts = "criu_local_"+row.C, "o, "
			}
			for _, values := range setterValues(row) {
				var calls strings.Builder
				for _, v := range values {
					call := fmt.Sprintf("%s(%s%s)", name, opts, v)
					if row.Kind == rpctable.String || row.CForm == rpctable.CChecked {
						call = "RET(" + call + ")"
					}
					calls.WriteString(call + "; ")
				}
				label := strings.NewReplacer(`"`, "'", "\\", "").Replace(strings.Join(values, ", "))
				fmt.Fprintf(&b, "SETTER(\"%s %s\", %s);\n", name, label, calls.String())
			}
		}
	}
	return b.String()
}

func setterValues(row rpctable.Field) [][]string {
	switch row.Kind {
	case rpctable.Bool:
		return [][]string{{"true"}, {"false"}, {"true", "false"}}
	case rpctable.Int32:
		return [][]string{{"0"}, {"1"}, {"127"}, {"128"}, {"-1"}, {"INT_MAX"}, {"INT_MIN"}, {"1", "2"}}
	case rpctable.Uint32:
		return [][]string{{"0"}, {"1"}, {"2"}, {"255"}, {"1024"}, {"1025"}, {"4096"}, {"4097"}, {"65537"}, {"65538"}, {"1048576"},
			{"4194304"}, {"4198400"}, {"2147483647"}, {"2147483648"}, {"4294967295"}, {"1", "0"}}
	case rpctable.Enum:
		return [][]string{{"0"}, {"1"}, {"2"}, {"3"}, {"4"}, {"6"}, {"7"}, {"-1"}, {"INT_MAX"}, {"INT_MIN"}, {"1", "99"}, {"1", "2"}}
	default:
		return [][]string{{`""`}, {`"x"`}, {`"with space"`}, {`"\303\274"`}, {`"one"`, `"two"`}, {`"one"`, `""`, `"three"`},
			{"text(127)"}, {"text(128)"}, {"text(70000)"}, {"text(70000)", `"short"`}}
	}
}

// newer reports whether version a is after version b.
func newer(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		var m, n int
		if i < len(x) {
			m, _ = strconv.Atoi(x[i])
		}
		if i < len(y) {
			n, _ = strconv.Atoi(y[i])
		}
		if m != n {
			return m > n
		}
	}
	return false
}
