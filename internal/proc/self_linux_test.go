package proc

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestSelf reads the /proc of the kernel at hand: every parser must understand it.
func TestSelf(t *testing.T) {
	proc := New(os.DirFS("/proc"))
	pid := os.Getpid()
	p := proc.Process(pid)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	s := must(p.Status())(t)
	if s.PID != pid || s.PPID != os.Getppid() || s.Threads < 1 || s.SeccompCount == 0 && s.Seccomp == 2 {
		t.Errorf("%+v", s)
	}
	if st := must(p.Stat())(t); st.PID != pid || st.Comm != s.Name {
		t.Errorf("%+v", st)
	}
	if m := must(p.Maps())(t); len(m) < 5 {
		t.Errorf("%+v", m)
	}
	text := false
	if err := p.Smaps(func(m *Smap) error {
		text = text || m.Flags.Has(VMExec) && strings.HasSuffix(m.Path, ".test")
		return nil
	}); err != nil || !text {
		t.Errorf("smaps: %v, the program seen: %v", err, text)
	}
	f, err := os.Open("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(3, 0); err != nil {
		t.Fatal(err)
	}
	if fds := must(p.FDs())(t); !slices.Contains(fds, int(f.Fd())) {
		t.Errorf("fds %v", fds)
	}
	if info := must(p.FDInfo(int(f.Fd())))(t); info.Pos != 3 || len(info.Extra) != 0 {
		t.Errorf("%+v", info)
	}
	if l := must(p.Limits())(t); l[7].Soft == 0 {
		t.Errorf("%+v", l)
	}
	if len(must(p.MountInfo())(t)) == 0 || len(must(p.Auxv(8))(t)) < 20 || len(must(p.Threads())(t)) == 0 {
		t.Error("mounts, auxv or threads")
	}
	if args := SplitArgs(must(p.Cmdline())(t)); !slices.Equal(args, os.Args) {
		t.Errorf("%q", args)
	}
	must(p.Cgroup())(t)
	must(p.Timers())(t)
	must(p.UIDMap())(t)
	must(p.OOMScoreAdj())(t)
	must(proc.Locks())(t)
	must(proc.Thread(pid, pid).Comm())(t)
	if ns := must(p.NS("pid"))(t); ns.Kind != "pid" || ns.Inode == 0 {
		t.Errorf("%v", ns)
	}
	if exe, err := os.Executable(); err != nil || must(p.Link("exe"))(t) != exe {
		t.Errorf("exe %s, %v", exe, err)
	}
	if all := must(proc.Processes())(t); !slices.Contains(all, pid) {
		t.Errorf("processes %v", all)
	}
}
