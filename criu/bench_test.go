package criu_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	gocriu "github.com/checkpoint-restore/go-criu/v8"
	criurpc "github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// bareExchange is the least that a conversation with `criu swrk` takes: a pair of sockets, a child, a packet there and
// one back, and waiting for the child.
func bareExchange(path string, packet []byte, null int) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	pid, err := syscall.ForkExec(path, []string{path, "swrk", "3"}, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(pair[1])}})
	unix.Close(pair[1])
	if err != nil {
		unix.Close(pair[0])
		return err
	}
	var answer [8192]byte
	n := 0
	if _, err = unix.Write(pair[0], packet); err == nil {
		n, err = unix.Read(pair[0], answer[:])
	}
	unix.Close(pair[0])
	if _, waitErr := syscall.Wait4(pid, nil, 0, nil); err == nil {
		err = waitErr
	}
	if err != nil {
		return err
	}
	var resp rpc.Resp
	if err := resp.Decode(answer[:n]); err != nil || !resp.Success {
		return fmt.Errorf("answer %+v, %w", resp, err)
	}
	return nil
}

// contender is one way to do the same.
type contender struct {
	name  string
	do    func() error
	times []time.Duration
}

// alternate runs the contenders in turn, and reports the medians of their times, their ratios
// to the first, and what this process allocates for each.
func alternate(b *testing.B, contenders ...*contender) {
	b.Helper()
	run := func(c *contender) time.Duration {
		start := time.Now()
		if err := c.do(); err != nil {
			b.Fatalf("%s: %v", c.name, err)
		}
		return time.Since(start)
	}
	alloc := make(map[string]float64)
	for _, c := range contenders {
		run(c) // once for what is made at the first use only
		const calls = 10
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range calls {
			run(c)
		}
		runtime.ReadMemStats(&after)
		alloc[c.name+"-allocs"] = float64(after.Mallocs-before.Mallocs) / calls
		alloc[c.name+"-B"] = float64(after.TotalAlloc-before.TotalAlloc) / calls
	}
	b.ResetTimer()
	order := slices.Clone(contenders)
	for range b.N {
		// In an order by chance: who comes next feels what the one before has left to the kernel to do.
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, c := range order {
			c.times = append(c.times, run(c))
		}
	}
	for name, n := range alloc {
		b.ReportMetric(n, name)
	}
	first := 0.0
	for i, c := range contenders {
		slices.Sort(c.times)
		median := c.times[len(c.times)/2].Seconds() * 1e3
		if i == 0 {
			first = median
		} else {
			b.ReportMetric(median/first, c.name+"/"+contenders[0].name)
		}
		b.ReportMetric(median, c.name+"-ms")
	}
	b.ReportMetric(0, "ns/op") // which would be the sum of all
}

func devNull(b *testing.B) int {
	b.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

func openDir(b *testing.B) *os.File {
	b.Helper()
	d, err := os.Open(testkit.MemoryDir(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { d.Close() })
	return d
}

// BenchmarkCheck compares with a bare exchange alone: go-criu has no CHECK. Without a directory the client makes one for
// the log, as a check without is not to be had from every CRIU.
func BenchmarkCheck(b *testing.B) {
	testkit.Need(b, testkit.Root, testkit.CRIU)
	path, null, dir, ctx := testkit.CRIUPath(b), devNull(b), openDir(b), context.Background()
	packet := (&rpc.Req{Type: rpc.ReqCheck, Opts: &rpc.Opts{ImagesDirFD: int32(dir.Fd()), LogFile: new("check.log")}}).Append(nil)
	c := criu.New(&criu.Swrk{Path: path})
	alternate(b,
		&contender{name: "bare", do: func() error { return bareExchange(path, packet, null) }},
		&contender{name: "stasis", do: func() error { return c.Check(ctx, criu.CheckOptions{ImagesDirFile: dir, LogFile: "check.log"}) }},
		&contender{name: "stasis-no-dir", do: func() error { return c.Check(ctx, criu.CheckOptions{}) }})
}

func BenchmarkVersion(b *testing.B) {
	testkit.Need(b, testkit.Root, testkit.CRIU)
	path, null, ctx := testkit.CRIUPath(b), devNull(b), context.Background()
	packet := (&rpc.Req{Type: rpc.ReqVersion}).Append(nil)
	c := criu.New(&criu.Swrk{Path: path})
	theirs := gocriu.MakeCriu()
	theirs.SetCriuPath(path)
	alternate(b,
		&contender{name: "bare", do: func() error { return bareExchange(path, packet, null) }},
		&contender{name: "stasis", do: func() error { _, err := c.Version(ctx); return err }},
		&contender{name: "go-criu", do: func() error { _, err := theirs.GetCriuVersion(); return err }})
}

// BenchmarkDump dumps a small process, which is left running. A context that can end costs the notifications, in which
// the peer can be told to stop.
func BenchmarkDump(b *testing.B) {
	testkit.Need(b, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
	path, null, dir, ctx := testkit.CRIUPath(b), devNull(b), openDir(b), context.Background()
	v := testkit.StartVictim(b, "counter", "1000000")
	packet := (&rpc.Req{Type: rpc.ReqDump, Opts: &rpc.Opts{ImagesDirFD: int32(dir.Fd()), PID: new(int32(v.Pid)),
		LeaveRunning: new(true), LogFile: new("dump.log")}}).Append(nil)
	c := criu.New(&criu.Swrk{Path: path})
	o := criu.DumpOptions{ImagesDirFile: dir, PID: v.Pid, LeaveRunning: true, LogFile: "dump.log"}
	cancellable, cancel := context.WithCancel(ctx)
	defer cancel()
	theirs := gocriu.MakeCriu()
	theirs.SetCriuPath(path)
	alternate(b,
		&contender{name: "bare", do: func() error { return bareExchange(path, packet, null) }},
		&contender{name: "bare-again", do: func() error { return bareExchange(path, packet, null) }},
		&contender{name: "stasis", do: func() error { _, err := c.Dump(ctx, o); return err }},
		&contender{name: "go-criu", do: func() error {
			return theirs.Dump(&criurpc.CriuOpts{ImagesDirFd: new(int32(dir.Fd())), Pid: new(int32(v.Pid)),
				LeaveRunning: new(true), LogFile: new("dump.log")}, nil)
		}},
		&contender{name: "stasis-cancellable", do: func() error { _, err := c.Dump(cancellable, o); return err }})
}

// BenchmarkBinarySize reports what importing a client adds to a program.
func BenchmarkBinarySize(b *testing.B) {
	testkit.Need(b, testkit.Program("go"))
	const hello = "package main\n\nimport (\n\t\"fmt\"\n\t%s\n)\n\nfunc main() { fmt.Println(%s) }\n"
	size := func(name, imported, used string) float64 {
		dir := b.TempDir()
		source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, name)
		if err := os.WriteFile(source, fmt.Appendf(nil, hello, imported, used), 0o600); err != nil {
			b.Fatal(err)
		}
		cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, source)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		st, err := os.Stat(program)
		if err != nil {
			b.Fatal(err)
		}
		return float64(st.Size())
	}
	for range b.N {
		plain := size("hello", "", `"hello"`)
		ours := size("ours", `"context"; "stasis.example/criu"`,
			`criu.New(&criu.Swrk{}).Dump(context.Background(), criu.DumpOptions{})`)
		theirs := size("theirs", `"github.com/checkpoint-restore/go-criu/v8"; "github.com/checkpoint-restore/go-criu/v8/rpc"`,
			`criu.MakeCriu().Dump(&rpc.CriuOpts{}, nil)`)
		b.ReportMetric((ours-plain)/1024, "stasis-KiB")
		b.ReportMetric((theirs-plain)/1024, "go-criu-KiB")
		b.ReportMetric((ours-plain)/(theirs-plain), "stasis/go-criu")
	}
	b.ReportMetric(0, "ns/op")
}
