//go:build amd64

package engine

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/image"
	"stasis.example/internal/testkit"
)

// Pages are found on kernels without PAGEMAP_SCAN, too.
func TestDumpByPagemapWords(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("threads"))
	victim := testkit.StartVictim(t, "threads")
	images := t.TempDir()
	e := New()
	e.oldPages = true
	if err := dumpTo(t, e, images, victim.Pid, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := victim.Wait(); err != nil {
		t.Fatal(err)
	}
	criuRestore(t, images)
	victim.Restored()
	victim.MustVerify()
}

// There, too, memory that was read and never written takes no room.
func TestDumpByPagemapWordsWithoutZeros(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("pages"))
	victim, images := testkit.StartVictim(t, "pages", "zero"), t.TempDir()
	e := New()
	e.oldPages = true
	if err := dumpTo(t, e, images, victim.Pid, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := victim.Wait(); err != nil {
		t.Fatal(err)
	}
	const most = 1 << 20 // of 20 MB
	if info, err := os.Stat(filepath.Join(images, "pages-1.img")); err != nil || info.Size() > most {
		t.Errorf("pages-1.img: %v, %v", info.Size(), err)
	}
	testkit.AwaitFreeIDs(t, images)
	if err := restoreFrom(t.Context(), New(), images); err != nil {
		t.Fatal(err)
	}
	victim.Restored()
	victim.MustVerify()
}

// Statistics count the pages that are in the images.
func TestDumpStatistics(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	victim := testkit.StartVictim(t, "counter")
	images := t.TempDir()
	if err := dumpTo(t, New(), images, victim.Pid, func(o *criu.DumpOptions) { o.LeaveRunning = true }); err != nil {
		t.Fatal(err)
	}
	stats, err := criu.ReadDumpStats(images)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := image.OpenDir(images)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	pagemap, err := image.OpenPagemap(dir, image.Pagemap, uint64(victim.Pid), 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer pagemap.Close()
	pages := uint64(0)
	for run, err := pagemap.Next(); err == nil; run, err = pagemap.Next() {
		pages += run.Pages
	}
	if stats.PagesWritten != pages || pages == 0 || stats.PagesScanned < pages-2 || stats.Frozen == 0 { // the vDSO is not scanned
		t.Errorf("%+v, and %d pages in the images", stats, pages)
	}
	info, err := os.Stat(filepath.Join(images, "pages-1.img"))
	if err != nil || info.Size() != int64(pages)*4096 {
		t.Errorf("pages-1.img: %v, %v, want %d pages", info, err, pages)
	}
	log, err := os.ReadFile(filepath.Join(images, "dump.log"))
	line := regexp.MustCompile(`^\(\d\d\.\d{6}\) (Error \(\w+\): |Warn  \(\w+\): )?.`)
	for l := range strings.Lines(string(log)) {
		if !line.MatchString(l) {
			t.Errorf("a line of the log: %q", l)
		}
	}
	if err != nil || len(log) == 0 {
		t.Errorf("the log: %q, %v", log, err)
	}
	victim.MustVerify()
}

// A tree that is left stopped does not run, until somebody lets it.
func TestDumpLeavesStopped(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("tree"))
	victim := testkit.StartVictim(t, "tree")
	if err := dumpTo(t, New(), t.TempDir(), victim.Pid, func(o *criu.DumpOptions) { o.LeaveStopped = true }); err != nil {
		t.Fatal(err)
	}
	if state := victim.State(); state != "T" {
		t.Errorf("the victim is in state %s, want T", state)
	}
	if err := victim.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// Whoever is notified can refuse, and the tree runs on.
func TestDumpNotifies(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("threads"))
	victim := testkit.StartVictim(t, "threads")
	var stages []string
	refusal := errors.New("not now")
	for _, at := range []string{"pre-dump", "query-ext-files", "post-dump", ""} {
		stages = nil
		err := dumpTo(t, New(), t.TempDir(), victim.Pid, func(o *criu.DumpOptions) {
			o.LeaveRunning = true
			o.Notify = func(_ context.Context, n *criu.Event) error {
				stages = append(stages, n.Name)
				if n.Name == at {
					return refusal
				}
				return nil
			}
		})
		if (at != "") != errors.Is(err, refusal) || at == "" && err != nil {
			t.Errorf("refused at %q: %v", at, err)
		}
	}
	if !slices.Equal(stages, []string{"pre-dump", "query-ext-files", "post-dump"}) {
		t.Errorf("stages %q", stages)
	}
	victim.MustVerify()
}

// A dump that is cancelled while the tree stands still lets it go.
func TestDumpIsCancelled(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("threads"))
	victim := testkit.StartVictim(t, "threads")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := criu.New(New()).Dump(ctx, criu.DumpOptions{ImagesDir: t.TempDir(), PID: victim.Pid, Notify: func(_ context.Context, n *criu.Event) error {
		if n.Name == "post-dump" {
			cancel()
		}
		return nil
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled dump: %v", err)
	}
	victim.MustVerify()
}

// Everything that cannot be saved is named in one message.
func TestDumpNamesEverything(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	socket, err := listener.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	memfd, err := unix.MemfdCreate("victim", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(memfd), "memfd")
	defer file.Close()
	victim := testkit.VictimSpec{Name: "counter", Stdin: socket, Stderr: file}.Start(t)
	err = dumpTo(t, New(), t.TempDir(), victim.Pid, nil)
	for _, want := range []string{"descriptor 0 (socket:", "descriptor 2 (/memfd:victim"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the dump: %v, want %q", err, want)
		}
	}
	if err != nil && strings.Count(err.Error(), "descriptor 0 (socket:") != 1 {
		t.Errorf("it is said more than once: %v", err)
	}
	victim.MustVerify()
}

// pythonHeap fills a heap of some 50 MB and says whether it is as it was, when it is asked.
const pythonHeap = `
import os, signal
heap = [os.urandom(500) for i in range(100000)]
before = hash(tuple(heap))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
os.write(1, b"ready\n")
signal.sigwait({signal.SIGUSR1})
os.write(1, b"ok\n" if hash(tuple(heap)) == before else b"FAIL the heap has changed\n")
`

// A disk that is full costs the victim nothing, whether the process writes its pages itself or not.
func TestDumpToFullDisk(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"), testkit.Python)
	for _, v := range []struct {
		name string
		spec testkit.VictimSpec
		size string
	}{
		{"small", testkit.VictimSpec{Name: "counter"}, "size=64k"},
		{"large", testkit.VictimSpec{Name: testkit.PythonPath, Args: []string{"-c", pythonHeap}}, "size=8m"},
	} {
		t.Run(v.name, func(t *testing.T) {
			victim := v.spec.Start(t)
			disk := mountTmpfs(t, v.size)
			if err := dumpTo(t, New(), disk, victim.Pid, nil); !errors.Is(err, criu.ErrNoSpace) {
				t.Errorf("a dump to a full disk: %v", err)
			}
			victim.MustVerify()
		})
	}
}

// mountTmpfs mounts a file system in memory for the time of a test.
func mountTmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Large memory takes another way to a file in memory than to one on a disk.
func TestLargeMemoryToTmpfs(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.Python)
	victim := testkit.VictimSpec{Name: testkit.PythonPath, Args: []string{"-c", pythonHeap}}.Start(t)
	images := mountTmpfs(t, "size=256m")
	dumpAway(t, New(), victim, images)
	if err := restoreFrom(t.Context(), New(), images); err != nil {
		t.Fatal(err)
	}
	victim.Restored()
	victim.MustVerify()
}

// What there is not yet is refused by name.
func TestRequestsThatAreRefused(t *testing.T) {
	conn, err := New().Open(t.Context(), criu.Call{Op: rpc.ReqRestore})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, typ := range []rpc.ReqType{rpc.ReqPreDump, rpc.ReqPageServer, rpc.ReqSinglePreDump, rpc.ReqWaitPID} {
		if err := conn.Send(t.Context(), &rpc.Req{Type: typ}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		m, err := conn.Recv(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if m.Resp.Type != typ || m.Resp.Success || !errors.Is(m.Detail, errors.ErrUnsupported) || !strings.Contains(*m.Resp.CrErrmsg, typ.String()) {
			t.Errorf("%v: %+v, %v", typ, m.Resp, m.Detail)
		}
	}
}

func TestVersionAndCheck(t *testing.T) {
	client := criu.New(New())
	if v, err := client.Version(t.Context()); err != nil || !v.AtLeast(4, 2) {
		t.Errorf("version %v, %v", v, err)
	}
	testkit.Need(t, testkit.Root)
	if err := client.Check(t.Context(), criu.CheckOptions{}); err != nil {
		t.Error(err)
	}
}

// A process that does not exist, this program itself, and one that it is in the tree of, which is not even stopped.
func TestDumpOfNobody(t *testing.T) {
	testkit.Need(t, testkit.Root)
	if err := dumpTo(t, New(), t.TempDir(), 1<<22-1, nil); !errors.Is(err, criu.ErrNoProcess) {
		t.Errorf("a dump of nobody: %v", err)
	}
	if err := dumpTo(t, New(), t.TempDir(), os.Getpid(), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a dump of oneself: %v", err)
	}
	if err := dumpTo(t, New(), t.TempDir(), os.Getppid(), nil); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "has started this program") {
		t.Errorf("a dump of the parent: %v", err)
	}
}

// Whoever is told of a stage may take longer than the operation has: its answer comes too late, and the operation's is there.
func TestNotificationIsAnsweredLate(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	victim := testkit.StartVictim(t, "counter")
	err := dumpTo(t, New(), t.TempDir(), victim.Pid, func(o *criu.DumpOptions) {
		o.LeaveRunning, o.Raw.Timeout = true, new(uint32(1))
		o.Notify = func(ctx context.Context, n *criu.Event) error {
			if n.Name == "post-dump" {
				<-time.After(1200 * time.Millisecond)
			}
			return nil
		}
	})
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), "longer than --timeout allows, 1 s") {
		t.Errorf("a dump that takes too long: %v", err)
	}
	victim.MustVerify()
}
