package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stasis.example/internal/testkit"
)

// sources are the C files of the library.
func sources(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(source(), "*.c"))
	must(t, err)
	return files
}

// sanitized compiles a program of testdata together with the library's sources, with a compiler and its flags. The driver
// is compiled without the cases of the plain setters: walk.c has those, and a function of a thousand cases takes a
// sanitizing compiler minutes.
func sanitized(t testing.TB, compiler, name string, flags ...string) string {
	t.Helper()
	testkit.Need(t, testkit.Program(compiler))
	dir := t.TempDir()
	setters := setterCases("4.3")
	if name == "driver.c" {
		setters = ""
	}
	must(t, os.WriteFile(filepath.Join(dir, "setters.inc"), []byte(setters), 0o644))
	inc, out := include(t), filepath.Join(dir, strings.TrimSuffix(name, ".c"))
	run(t, command(t, compiler, slices.Concat([]string{"-std=gnu11", "-D_GNU_SOURCE", "-g", "-O0", "-fno-omit-frame-pointer",
		"-I" + source(), "-I" + inc, "-I" + filepath.Join(inc, "criu"), "-I" + dir, "-o", out},
		parts(t, name), sources(t), flags, []string{"-pthread", "-ldl"})...))
	must(t, os.Symlink(out, filepath.Join(dir, "criu")))
	must(t, os.Symlink(out, filepath.Join(dir, "other-criu")))
	return out
}

// TestSanitizers runs the compatibility cases, the hosts and the walk through all setters with the library built for the
// address and undefined-behaviour sanitizers; any report ends the program.
func TestSanitizers(t *testing.T) {
	testkit.Need(t, testkit.Root)
	env := []string{"ASAN_OPTIONS=abort_on_error=1:detect_leaks=1", "UBSAN_OPTIONS=halt_on_error=1:abort_on_error=1:print_stacktrace=1"}
	for _, compiler := range []string{"gcc", "clang"} {
		t.Run(compiler, func(t *testing.T) {
			flags := []string{"-fsanitize=address,undefined", "-fno-sanitize-recover=all"}

			t.Run("walk", func(t *testing.T) {
				run(t, with(command(t, sanitized(t, compiler, "walk.c", flags...), t.TempDir()), env...))
			})
			t.Run("driver", func(t *testing.T) {
				driver := sanitized(t, compiler, "driver.c", flags...)
				noLeaks := []string{"ASAN_OPTIONS=abort_on_error=1:detect_leaks=0", env[1]} // its cases end in _exit
				cases := parseCases(run(t, with(command(t, driver, t.TempDir(), "actions"), append(noLeaks, "PATH="+filepath.Dir(driver))...)))
				for _, c := range cases {
					if crashed(c) {
						t.Errorf("%s:\n%s", c.name, strings.Join(shorten(c.lines), "\n"))
					}
				}
				if len(cases) < 350 {
					t.Errorf("only %d cases ran", len(cases))
				}
			})
			t.Run("hosts", func(t *testing.T) {
				// Without its own malloc, which is the sanitizer's here.
				hosts := sanitized(t, compiler, "hosts.c", append(flags, "-DSANITIZED")...)
				for _, mode := range []string{"fork-unused", "fork-used", "fork-used-threads", "namespaces", "callbacks", "threads",
					"subreaper"} {
					run(t, with(command(t, hosts, mode), "ASAN_OPTIONS=abort_on_error=1:detect_leaks=0", env[1]))
				}
			})
		})
	}
	t.Run("thread", func(t *testing.T) {
		hosts := sanitized(t, "clang", "hosts.c", "-fsanitize=thread", "-DSANITIZED")
		run(t, with(command(t, hosts, "threads"), "TSAN_OPTIONS=halt_on_error=1:abort_on_error=1"))
	})
}

// TestValgrind walks through all setters under valgrind, which finds what is read before it is written, and leaks.
func TestValgrind(t *testing.T) {
	testkit.Need(t, testkit.Program("valgrind"))
	walk := sanitized(t, "gcc", "walk.c")
	run(t, command(t, "valgrind", "--quiet", "--leak-check=full", "--show-leak-kinds=all", "--errors-for-leak-kinds=all",
		"--track-fds=yes", "--error-exitcode=9", walk, t.TempDir()))
}

// TestAnalyzers has compilers and analyzers, all that are installed, read the library.
func TestAnalyzers(t *testing.T) {
	testkit.Need(t, testkit.Program("gcc"), testkit.Program("clang"), testkit.Program("cppcheck"), testkit.Program("clang-tidy"))
	t.Log(strings.Join(strings.Fields(run(t, command(t, "make", "--no-print-directory", "-C", source(), "check"))), " "))
}

// TestFuzzDecoder runs the decoder of responses under libFuzzer for a while. STASIS_FUZZ_RUNS makes it longer.
func TestFuzzDecoder(t *testing.T) {
	runs := os.Getenv("STASIS_FUZZ_RUNS")
	if runs == "" {
		runs = "300000"
	}
	testkit.Need(t, testkit.Program("clang"))
	out := filepath.Join(t.TempDir(), "fuzz")
	inc := include(t)
	run(t, command(t, "clang", "-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1", "-fsanitize=fuzzer,address,undefined",
		"-fno-sanitize-recover=all", "-I"+source(), "-I"+inc, "-o", out, "testdata/fuzz_response.c", filepath.Join(source(), "wire.c")))
	corpus := t.TempDir()
	for i, seed := range []string{
		"\x08\x01\x10\x01\x1a\x02\x08\x01",
		"\x08\x06\x10\x01\x2a\x11\x0a\x0cpost-restore\x10\xd2\x09",
		"\x08\x0a\x10\x01\x52\x0f\x08\x04\x10\x02\x1a\x02gi\x20\x01\x28\x01\x32\x01n",
		"\x08\x05\x10\x00\x32\x08\x0a\x01x\x10\x05\x18\x07\x38\x11\x42\x02\x08\x01\x4a\x02no\x58\x09",
	} {
		must(t, os.WriteFile(filepath.Join(corpus, string(rune('a'+i))), []byte(seed), 0o644))
	}
	cmd := command(t, out, "-runs="+runs, "-max_len=300", "-print_final_stats=1", corpus)
	cmd.Dir = t.TempDir()
	combined, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(string(combined)))
	}
	for line := range strings.Lines(string(combined)) {
		if strings.HasPrefix(line, "stat::number_of_executed_units") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// TestDecoderAgainstReference sends the same mutated responses to the reference and to ours.
func TestDecoderAgainstReference(t *testing.T) {
	reference := testkit.ToolPath(t, "criu", "libcriu")
	lib := library(t)
	out := filepath.Join(t.TempDir(), "differ")
	run(t, command(t, "gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-I"+source(), "-o", out, "testdata/differ.c",
		filepath.Join(source(), "wire.c"), "-ldl"))
	t.Log(strings.TrimSpace(run(t, with(command(t, out, filepath.Join(reference, "libcriu.so.2"), filepath.Join(lib, "libcriu.so.2"),
		"200000"), libraryPath(reference)))))
}
