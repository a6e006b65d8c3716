package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"stasis.example/internal/testkit"
)

// measure is a row of the table: how it is measured, and how far ours may be from the reference.
type measure struct {
	name   string
	mode   string // of testdata/bench.c
	column int    // of what that prints
	unit   string
	limit  float64 // ours divided by the reference, or ours itself where absolute
	absol  bool
}

func measures() []measure {
	return []measure{
		{name: "load and unload", mode: "load", unit: "ns", limit: 1},
		{name: "private memory after load", mode: "memory", column: 0, unit: "KiB", limit: 1},
		{name: "private memory after 500 calls", mode: "memory", column: 1, unit: "KiB", limit: 1},
		{name: "criu_check, connected peer", mode: "check-fd", unit: "ns", limit: 1.05},
		{name: "criu_check, peer started each time", mode: "check-bin", unit: "ns", limit: 1.05},
		{name: "setter of a number", mode: "setters", column: 0, unit: "ns", limit: 20, absol: true},
		{name: "setter of a boolean", mode: "setters", column: 1, unit: "ns", limit: 20, absol: true},
		{name: "setter of a string", mode: "setters", column: 2, unit: "ns", limit: 20, absol: true},
		{name: "one element of a list of 100, with its share of criu_init_opts", mode: "setters", column: 3, unit: "ns", limit: 1},
	}
}

// BenchmarkAgainstReference measures both libraries in alternation and compares the medians. It prints the table of
// docs/libcriu-bench.md, and writes it there when STASIS_WRITE_BENCH is set.
func BenchmarkAgainstReference(b *testing.B) {
	reference, lib := testkit.ToolPath(b, "criu", "libcriu"), library(b)
	bench := filepath.Join(b.TempDir(), "bench")
	run(b, command(b, "gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-o", bench, "testdata/bench.c", "-ldl"))
	for b.Loop() {
		compareLibraries(b, bench, filepath.Join(reference, "libcriu.so.2"), filepath.Join(lib, "libcriu.so.2"))
	}
}

func compareLibraries(b *testing.B, bench, reference, ours string) {
	b.Helper()
	const rounds = 9
	samples := map[string][2][][]float64{} // by mode, then library, then round
	for range rounds {
		for _, mode := range []string{"load", "memory", "check-fd", "check-bin", "setters"} {
			s := samples[mode]
			for i, path := range []string{reference, ours} {
				out := run(b, with(command(b, bench, path, mode), libraryPath(filepath.Dir(path))))
				var row []float64
				for _, f := range strings.Fields(out) {
					v, err := strconv.ParseFloat(f, 64)
					must(b, err)
					row = append(row, v)
				}
				s[i] = append(s[i], row)
			}
			samples[mode] = s
		}
	}

	var table strings.Builder
	fmt.Fprintf(&table, "| | Debian's 4.2.1 | ours | ratio | at most |\n|---|---:|---:|---:|---:|\n")
	theirSize := size(b, reference) + size(b, filepath.Join(filepath.Dir(reference), "libprotobuf-c.so.1"))
	ourSize := size(b, ours)
	fmt.Fprintf(&table, "| size on disk, with what it loads beside libc | %d B | %d B | %.2f | 1.00 |\n", theirSize, ourSize,
		float64(ourSize)/float64(theirSize))
	if ourSize > theirSize {
		b.Errorf("ours is larger: %d B against %d B", ourSize, theirSize)
	}
	for _, m := range measures() {
		median := func(library int) float64 {
			var v []float64
			for _, row := range samples[m.mode][library] {
				v = append(v, row[m.column])
			}
			slices.Sort(v)
			return v[len(v)/2]
		}
		theirs, own := median(0), median(1)
		got, limit := own/theirs, fmt.Sprintf("%.2f", m.limit)
		if m.absol {
			got, limit = own, fmt.Sprintf("%.0f %s", m.limit, m.unit)
		}
		format := "%.0f"
		if m.absol {
			format = "%.1f"
		}
		fmt.Fprintf(&table, "| %s | "+format+" %s | "+format+" %s | %.2f | %s |\n", m.name, theirs, m.unit, own, m.unit, own/theirs, limit)
		if got > m.limit {
			b.Errorf("%s: %.2f, which is more than %.2f", m.name, got, m.limit)
		}
	}
	b.Logf("\n%s", table.String())
	if os.Getenv("STASIS_WRITE_BENCH") != "" {
		writeTable(b, table.String(), rounds)
	}
}

func size(b *testing.B, path string) int64 {
	b.Helper()
	info, err := os.Stat(path)
	must(b, err)
	return info.Size()
}

func writeTable(b *testing.B, table string, rounds int) {
	b.Helper()
	cpu := "an unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, ok := strings.Cut(string(info), "model name\t: "); ok {
			cpu, _, _ = strings.Cut(after, "\n")
		}
	}
	kernel, _, _ := strings.Cut(strings.TrimSpace(run(b, exec.Command("uname", "-r"))), "-")
	text := fmt.Sprintf(`# libcriu, measured

Written by `+"`STASIS_WRITE_BENCH=1 go test -run '^$' -bench AgainstReference ./libcriu/test`"+`: medians of %d rounds, in
alternation with Debian's libcriu.so.2, in processes of one and the same program (libcriu/test/testdata/bench.c). Figures
of different runs do not compare; the ratios do. Seen on %s, Linux %s.

%s
Debian's library loads libprotobuf-c.so.1; both load libc, which is not counted. Memory is what is private to the process:
written pages, and pages that no other process maps. A peer that is started answers at once; the difference is vfork(2)
against fork(2), and grows with the program.
`, rounds, cpu, kernel, table)
	must(b, os.WriteFile(filepath.Join(testkit.SourceRoot(), "docs", "libcriu-bench.md"), []byte(text), 0o644))
}
