package server

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// daemon starts a program that serves on a socket in the directory, and says on descriptor 3 when it does.
func daemon(b *testing.B, dir string, argv ...string) *criu.Service {
	b.Helper()
	ready, readyW, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	defer ready.Close()
	socket := filepath.Join(dir, "socket")
	cmd := exec.Command(argv[0], append(argv[1:], "service", "--address", socket, "--status-fd", "3", "-W", dir, "-o", "log")...)
	cmd.ExtraFiles = []*os.File{readyW}
	err = cmd.Start()
	readyW.Close()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if n, err := ready.Read(make([]byte, 1)); n != 1 {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		b.Fatalf("%v does not serve: %v\n%s", argv, err, log)
	}
	return &criu.Service{Path: socket}
}

// onTmpfs is a directory in memory: how fast a disk is, is not the question.
func onTmpfs(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "stasis-bench-*")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// BenchmarkService compares `stasis service` and its own engine with `criu service`, in alternation: the time from the client's
// connect to its answer. Reported are medians and their ratio.
func BenchmarkService(b *testing.B) {
	testkit.Need(b, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
	stasis := filepath.Join(testkit.SourceRoot(), "bin", "stasis")
	testkit.Need(b, testkit.Feature("bin/stasis", func() error {
		if _, err := os.Stat(stasis); err != nil {
			return testkit.Missing("make build has not made it")
		}
		return nil
	}))
	services := []*criu.Service{daemon(b, b.TempDir(), testkit.CRIUPath(b)), daemon(b, b.TempDir(), stasis)}
	clients := make([]*criu.Client, len(services))
	for i, s := range services {
		clients[i] = criu.New(s)
	}
	// Each has a victim of its own: CRIU restores into a new time namespace.
	victims := []*testkit.Victim{testkit.StartVictim(b, "counter"), testkit.StartVictim(b, "counter")}
	for _, bench := range []struct {
		name string
		do   func(c *criu.Client, pid int, dir string) error
	}{
		{"version", func(c *criu.Client, _ int, _ string) error { _, err := c.Version(b.Context()); return err }},
		{"dump", func(c *criu.Client, pid int, dir string) error {
			_, err := c.Dump(b.Context(), criu.DumpOptions{PID: pid, ImagesDir: dir, LeaveRunning: true})
			return err
		}},
		{"restore", func(c *criu.Client, _ int, dir string) error {
			_, err := c.Restore(b.Context(), criu.RestoreOptions{ImagesDir: dir})
			return err
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			dirs := make([]string, len(clients))
			for i, c := range clients {
				dirs[i] = onTmpfs(b)
				if bench.name == "restore" {
					continue
				}
				if err := bench.do(c, victims[i].Pid, dirs[i]); err != nil { // once for what is made at the first use only
					b.Fatal(err)
				}
			}
			times := make([][]time.Duration, len(clients))
			for b.Loop() {
				for _, i := range rand.Perm(len(clients)) {
					if bench.name == "restore" {
						dumpAway(b, clients[i], victims[i], dirs[i])
					}
					began := time.Now()
					if err := bench.do(clients[i], victims[i].Pid, dirs[i]); err != nil {
						b.Fatal(err)
					}
					times[i] = append(times[i], time.Since(began))
					if bench.name == "restore" {
						victims[i].Restored()
					}
				}
			}
			for i := range times {
				slices.Sort(times[i])
			}
			of, ours := times[0][len(times[0])/2], times[1][len(times[1])/2]
			b.ReportMetric(float64(of.Microseconds())/1000, "criu-ms")
			b.ReportMetric(float64(ours.Microseconds())/1000, "stasis-ms")
			b.ReportMetric(float64(ours)/float64(of), "ratio")
			b.ReportMetric(load(b), "load")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// dumpAway dumps the victim, which is gone afterwards.
func dumpAway(b *testing.B, c *criu.Client, v *testkit.Victim, dir string) {
	b.Helper()
	if _, err := c.Dump(b.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir}); err != nil {
		b.Fatal(err)
	}
	if _, err := v.Wait(); err != nil {
		b.Fatal(err)
	}
	testkit.WaitFor(b, "the pid to be free", func() bool {
		return unix.Access(fmt.Sprintf("/proc/%d", v.Pid), unix.F_OK) != nil
	})
}

// load is how many processes want to run, beside this one: figures are worth what it says.
func load(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		b.Fatal(err)
	}
	var one float64
	if _, err := fmt.Sscan(string(text), &one); err != nil {
		b.Fatal(err)
	}
	return one
}
