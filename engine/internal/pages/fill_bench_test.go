//go:build amd64

package pages

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/stub"
	"stasis.example/internal/testkit"
)

// BenchmarkFill fills much memory from images in memory and on a disk, and says how fast. Run it with -benchtime=5x or so.
func BenchmarkFill(b *testing.B) {
	testkit.Need(b, testkit.Root)
	const n = 1 << 18
	for _, place := range []string{"/dev/shm", os.TempDir()} {
		dir, err := os.MkdirTemp(place, "fill-")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.RemoveAll(dir) })
		file := pagesFile(b, dir, n)
		for _, c := range []struct {
			name   string
			advice uint64
			filler Filler
		}{
			{"userfaultfd", 1 << unix.MADV_NOHUGEPAGE, Filler{}},
			{"written", 1 << unix.MADV_NOHUGEPAGE, Filler{NoUserfaultfd: true}},
			{"written, huge", 1 << unix.MADV_HUGEPAGE, Filler{}},
		} {
			b.Run(fmt.Sprintf("%s/%s", place, c.name), func(b *testing.B) {
				v := anon(0, n, readWrite)
				v.Advice = c.advice
				s := &snapshot.Space{VMAs: []snapshot.VMA{v}}
				b.SetBytes(n * Size)
				busy := time.Duration(0)
				for range b.N {
					b.StopTimer()
					err := withProcess(b.Context(), nil, s, nil, func(p *stub.Process) error {
						f := c.filler
						f.Kernel, f.Process, f.Space, f.Expect = p.Tracer().Kernel(), p, s, n*Size
						before := processorTime()
						b.StartTimer()
						defer func() {
							b.StopTimer()
							busy += processorTime() - before
						}()
						return f.Finish(f.Add(FillRun{Range: v.Range, Fate: FillWrite, File: file}))
					})
					if err != nil {
						b.Fatal(err)
					}
				}
				// Other programs do not make this longer, as they do the time on the clock.
				b.ReportMetric(busy.Seconds()*1e3/float64(b.N), "cpu-ms/op")
			})
		}
	}
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
