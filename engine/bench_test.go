//go:build amd64

package engine

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"stasis.example/internal/testkit"
)

// BenchmarkDump dumps a victim that goes on, in turns with CRIU, to tmpfs, and reports medians and their ratio.
func BenchmarkDump(b *testing.B) {
	for _, mib := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("%d MiB", mib), func(b *testing.B) {
			testkit.Need(b, testkit.Root, testkit.CRIU, testkit.VictimProgram("blocked"))
			v := testkit.StartVictim(b, "blocked", strconv.Itoa(mib), "1")
			var ours, criu []time.Duration
			for range max(b.N, 10) {
				dir := testkit.MemoryDir(b)
				start := time.Now()
				if err := dumpTo(b, dir, DumpOptions{PID: v.Pid, LeaveRunning: true}); err != nil {
					b.Fatal(err)
				}
				ours = append(ours, time.Since(start))
				remove(b, dir)
				dir = testkit.MemoryDir(b)
				start = time.Now()
				if out, err := exec.Command(testkit.CRIUPath(b), "dump", "-R", "-t", strconv.Itoa(v.Pid), "-D", dir, "-o", "log").CombinedOutput(); err != nil {
					b.Fatalf("criu dump: %v\n%s", err, out)
				}
				criu = append(criu, time.Since(start))
				remove(b, dir)
			}
			report(b, ours, criu)
		})
	}
}

// BenchmarkRestore restores the same images, in turns with CRIU.
func BenchmarkRestore(b *testing.B) {
	for _, mib := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("%d MiB", mib), func(b *testing.B) {
			testkit.Need(b, testkit.Root, testkit.CRIU, testkit.VictimProgram("blocked"))
			v := testkit.StartVictim(b, "blocked", strconv.Itoa(mib), "1")
			dir := testkit.MemoryDir(b)
			if err := dumpTo(b, dir, DumpOptions{PID: v.Pid}); err != nil {
				b.Fatal(err)
			}
			if _, err := v.Wait(); err != nil {
				b.Fatal(err)
			}
			kill := func() {
				v.Restored()
				if err := v.Kill(); err != nil {
					b.Fatal(err)
				}
			}
			var ours, criu []time.Duration
			for range max(b.N, 10) {
				start := time.Now()
				if _, err := restoreFrom(b, dir); err != nil {
					b.Fatal(err)
				}
				ours = append(ours, time.Since(start))
				kill()
				start = time.Now()
				restoreByCRIU(b, dir)
				criu = append(criu, time.Since(start))
				kill()
			}
			report(b, ours, criu)
		})
	}
}

func remove(b *testing.B, dir string) {
	b.Helper()
	if out, err := exec.Command("rm", "-rf", dir).CombinedOutput(); err != nil {
		b.Fatalf("rm: %v\n%s", err, out)
	}
}

func report(b *testing.B, ours, criu []time.Duration) {
	b.Helper()
	slices.Sort(ours)
	slices.Sort(criu)
	o, c := ours[len(ours)/2], criu[len(criu)/2]
	b.ReportMetric(float64(o.Microseconds())/1000, "ms/stasis")
	b.ReportMetric(float64(c.Microseconds())/1000, "ms/criu")
	b.ReportMetric(float64(o)/float64(c), "ratio")
	b.ReportMetric(0, "ns/op")
}
