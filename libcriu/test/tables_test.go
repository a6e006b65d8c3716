package test

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"stasis.example/internal/testkit"
)

// TestGenerated fails when a generated file is not what the table gives.
func TestGenerated(t *testing.T) {
	t.Parallel()
	run(t, command(t, "go", "run", "stasis.example/libcriu/gen", "-C", source(), "-check"))
}

// extensions are the functions that are declared in criu.h behind the line that says so.
func extensions(t *testing.T) []string {
	t.Helper()
	header, err := os.ReadFile(filepath.Join(source(), "criu.h"))
	must(t, err)
	_, after, ok := strings.Cut(string(header), "#define CRIU_HAVE_EXTENSIONS")
	if !ok {
		t.Fatal("criu.h does not say whether there are extensions")
	}
	return declared(after)
}

// declared returns the functions that a header declares.
func declared(header string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^[a-z][a-z ]*\*?\b(criu_\w+)\(`).FindAllStringSubmatch(header, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TestSymbols compares what the library exports with the API of CRIU 4.3 and the declared extensions: no name less, none
// more. The library needs libc and nothing else.
func TestSymbols(t *testing.T) {
	lib := library(t)
	f, err := elf.Open(filepath.Join(lib, "libcriu.so.2"))
	must(t, err)
	defer f.Close()
	needed, err := f.DynString(elf.DT_NEEDED)
	must(t, err)
	if !slices.Equal(needed, []string{"libc.so.6"}) {
		t.Errorf("the library needs %v", needed)
	}
	soname, err := f.DynString(elf.DT_SONAME)
	must(t, err)
	if !slices.Equal(soname, []string{"libcriu.so.2"}) {
		t.Errorf("the library calls itself %v", soname)
	}
	symbols, err := f.DynamicSymbols()
	must(t, err)
	var exported []string
	for _, s := range symbols {
		if s.Section == elf.SHN_UNDEF {
			continue
		}
		exported = append(exported, s.Name)
		want := elf.STT_FUNC
		if s.Name == "criu_lib_version" {
			want = elf.STT_OBJECT
		}
		if elf.ST_TYPE(s.Info) != want || s.Version != "" {
			t.Errorf("%s has type %v and version %q", s.Name, elf.ST_TYPE(s.Info), s.Version)
		}
	}
	slices.Sort(exported)

	b, err := os.ReadFile("testdata/abi-4.3.txt")
	must(t, err)
	api := strings.Fields(string(b))
	ext := extensions(t)
	want := slices.Concat(api, ext)
	slices.Sort(want)
	if !slices.Equal(exported, want) {
		t.Errorf("exported and unknown, or known and not exported: %v", difference(exported, want))
	}
	t.Logf("%d functions and criu_lib_version of 4.3, %d extensions", len(api)-1, len(ext))

	// The static library shows the same names.
	var static []string
	for line := range strings.Lines(run(t, command(t, "nm", "--defined-only", "--extern-only", filepath.Join(lib, "libcriu.a")))) {
		if fields := strings.Fields(line); len(fields) == 3 {
			static = append(static, fields[2])
		}
	}
	slices.Sort(static)
	if !slices.Equal(static, want) {
		t.Errorf("libcriu.a differs: %v", difference(static, want))
	}
}

// difference is what is in one of the lists only.
func difference(a, b []string) []string {
	var only []string
	for _, x := range a {
		if !slices.Contains(b, x) {
			only = append(only, x)
		}
	}
	for _, x := range b {
		if !slices.Contains(a, x) {
			only = append(only, x)
		}
	}
	return only
}

// TestHeader compiles criu.h as C99, C17 and C++, and holds its declarations against the reference's: a prototype or an
// enum value that differs does not compile.
func TestHeader(t *testing.T) {
	inc := include(t)
	dir := t.TempDir()
	use := filepath.Join(dir, "use.c")
	must(t, os.WriteFile(use, []byte("#include <criu/criu.h>\nint main(void) { return criu_check() == 0 ? criu_notify_pid(0) : CRIU_VERSION_MAJOR; }\n"), 0o644))
	for _, args := range [][]string{
		{"gcc", "-std=c99", "-pedantic", "-Wall", "-Wextra"}, {"gcc", "-std=c17", "-pedantic", "-Wall", "-Wextra"},
		{"clang", "-x", "c++", "-std=c++11", "-pedantic", "-Wall", "-Wextra"},
		{"clang", "-std=c99", "-Weverything", "-Wno-padded", "-Wno-unsafe-buffer-usage", "-Wno-unknown-warning-option"},
	} {
		testkit.Need(t, testkit.Program(args[0]))
		run(t, command(t, args[0], append(args[1:], "-Werror", "-fsyntax-only", "-I"+inc, use)...))
	}

	reference := testkit.ToolPath(t, "criu", "include")
	theirs, err := os.ReadFile(filepath.Join(reference, "criu", "criu.h"))
	must(t, err)
	ours, err := os.ReadFile(filepath.Join(source(), "criu.h"))
	must(t, err)
	known := declared(string(theirs))
	var b strings.Builder
	b.WriteString("#include <stddef.h>\n#include <criu.h>\n")
	compared := 0
	for _, m := range regexp.MustCompile(`(?m)^[a-z][a-z ]*\*?\b(criu_\w+)\([^;]*\);`).FindAllStringSubmatch(string(ours), -1) {
		if slices.Contains(known, m[1]) {
			b.WriteString(m[0] + "\n")
			compared++
		}
	}
	for _, name := range known {
		if !slices.Contains(declared(string(ours)), name) {
			t.Errorf("criu.h lacks %s", name)
		}
	}
	// Enum values, by what ours says they are.
	for _, m := range regexp.MustCompile(`\bCRIU_(?:COMM|CG_MODE|NETWORK_LOCK|PRE_DUMP|LOG)_\w+`).FindAllString(string(ours), -1) {
		fmt.Fprintf(&b, "_Static_assert(%s == %s, \"%s\");\n", m, constant(t, inc, m), m)
	}
	for _, member := range []string{"script", "has_pid", "pid"} {
		fmt.Fprintf(&b, "_Static_assert(offsetof(CriuNotify, %s) == %s, \"%s\");\n", member,
			constant(t, inc, "offsetof(CriuNotify, "+member+")"), member)
	}
	fmt.Fprintf(&b, "_Static_assert(sizeof(CriuNotify) == %s, \"size\");\n", constant(t, inc, "sizeof(CriuNotify)"))
	both := filepath.Join(dir, "both.c")
	must(t, os.WriteFile(both, []byte(b.String()), 0o644))
	run(t, command(t, "gcc", "-fsyntax-only", "-Wall", "-I"+filepath.Join(reference, "criu"), "-I"+reference, both))
	t.Logf("%d prototypes agree", compared)
}

// constant evaluates a constant expression with our header, at compile time.
func constant(t *testing.T, inc, expr string) string {
	t.Helper()
	dir := t.TempDir()
	src, obj := filepath.Join(dir, "c.c"), filepath.Join(dir, "c.s")
	must(t, os.WriteFile(src, []byte("#include <stddef.h>\n#include <criu/criu.h>\nlong value = (long)("+expr+");\n"), 0o644))
	run(t, command(t, "gcc", "-S", "-I"+inc, "-o", obj, src))
	b, err := os.ReadFile(obj)
	must(t, err)
	if m := regexp.MustCompile(`\.quad\s+(-?\d+)`).FindSubmatch(b); m != nil {
		return string(m[1])
	}
	if regexp.MustCompile(`\.zero\s+8`).Match(b) {
		return "0"
	}
	t.Fatalf("no value of %s in:\n%s", expr, b)
	return ""
}

// TestInstall installs into a directory, as a distribution does, and builds and runs a program against what is there.
func TestInstall(t *testing.T) {
	testkit.Need(t, testkit.Program("make"), testkit.Program("pkg-config"))
	library(t)
	dest := t.TempDir()
	run(t, command(t, "make", "--no-print-directory", "-C", source(), "install", "PREFIX=/usr", "LIBDIR=/usr/lib/multi", "DESTDIR="+dest))
	var files []string
	must(t, filepath.WalkDir(dest, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, dest))
		}
		return err
	}))
	want := []string{"/usr/include/criu/criu.h", "/usr/include/criu/version.h", "/usr/lib/multi/libcriu.a", "/usr/lib/multi/libcriu.so",
		"/usr/lib/multi/libcriu.so.2", "/usr/lib/multi/libcriu.so.2.0", "/usr/lib/multi/pkgconfig/criu.pc"}
	slices.Sort(files)
	if !slices.Equal(files, want) {
		t.Errorf("installed %v", files)
	}
	for _, link := range []string{"libcriu.so", "libcriu.so.2"} {
		if to, err := os.Readlink(filepath.Join(dest, "usr/lib/multi", link)); err != nil || to != "libcriu.so.2.0" {
			t.Errorf("%s points to %q (%v)", link, to, err)
		}
	}

	pkgconfig := func(args ...string) []string {
		return strings.Fields(run(t, with(command(t, "pkg-config", append(args, "criu")...),
			"PKG_CONFIG_PATH="+filepath.Join(dest, "usr/lib/multi/pkgconfig"), "PKG_CONFIG_SYSROOT_DIR="+dest,
			"PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1", "PKG_CONFIG_ALLOW_SYSTEM_LIBS=1")))
	}
	src := filepath.Join(t.TempDir(), "p.c")
	must(t, os.WriteFile(src, []byte(`#include <stdio.h>
#include <criu/criu.h>
#include <criu.h>
#ifndef CRIU_HAVE_EXTENSIONS
#error no extensions
#endif
int main(void) { criu_init_opts(); criu_set_service_address("/nonexistent"); int ret = criu_check(); printf("%d %s %s\n", ret, criu_get_errmsg(), CRIU_VERSION); return 0; }
`), 0o644))
	shared, static := filepath.Join(dest, "shared"), filepath.Join(dest, "static")
	run(t, command(t, "gcc", slices.Concat([]string{"-o", shared, src}, pkgconfig("--cflags", "--libs"))...))
	run(t, command(t, "gcc", slices.Concat([]string{"-static", "-o", static, src}, pkgconfig("--cflags", "--libs", "--static"))...))
	const said = "-111 cannot connect to /nonexistent: No such file or directory 4.3\n"
	if got := run(t, with(command(t, shared), libraryPath(filepath.Join(dest, "usr/lib/multi")))); got != said {
		t.Errorf("the program says %q", got)
	}
	if got := run(t, command(t, static)); got != said {
		t.Errorf("the static program says %q", got)
	}
	if got := strings.Join(pkgconfig("--modversion"), " "); got != "4.3" {
		t.Errorf("criu.pc is of version %s", got)
	}
}
