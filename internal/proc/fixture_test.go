package proc

import (
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// fixture is a captured /proc; see testdata/record.go for its form. The victim is the first process in it.
func fixture(t testing.TB, name string) (FS, int) {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{}
	for _, f := range a.Files {
		data, mode := f.Data, fs.FileMode(0o444)
		name, link := strings.CutSuffix(f.Name, ".link")
		name, quoted := strings.CutSuffix(name, ".quoted")
		if link || quoted {
			s, err := strconv.Unquote(strings.TrimSpace(string(data)))
			if err != nil {
				t.Fatalf("%s: %v", f.Name, err)
			}
			data = []byte(s)
		}
		if link {
			mode = fs.ModeSymlink | 0o777
		}
		files[name] = &fstest.MapFile{Data: data, Mode: mode}
	}
	first, _, _ := strings.Cut(a.Files[0].Name, "/")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return New(files), pid
}

// must returns v, or ends the test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

const victimName = ") R\n\\n (x"

func TestFixtureTask(t *testing.T) {
	proc, pid := fixture(t, "linux-6.18.txtar")
	p := proc.Process(pid)

	st := must(p.Stat())(t)
	if st.PID != pid || st.Comm != victimName || st.State != 'S' || st.NumThreads != 2 || st.StartTime == 0 || st.VSize == 0 || st.ExitCode != 0 || st.ExitSignal != 17 {
		t.Errorf("stat %+v", st)
	}
	if st.EnvEnd == 0 || st.RSSLim != math.MaxUint64 || len(st.Extra) != 0 || st.SigIgnore != 1<<12|1<<1|1<<2 {
		t.Errorf("stat %+v", st)
	}

	s := must(p.Status())(t)
	equal(t, "ids", []any{s.Name, s.Umask, s.State, s.Tgid, s.PID, s.TracerPID, s.UID, s.GID, s.Groups, s.NSPID},
		[]any{victimName, uint32(0o27), byte('S'), pid, pid, 0, IDs{}, IDs{}, []uint32{5, 70000, 4294967294}, []int{pid}})
	equal(t, "signals", []uint64{s.SigPnd, s.ShdPnd, s.SigBlk, s.SigIgn, s.SigCgt, s.SigQ}, []uint64{0, 1, 1<<63 | 1, 1<<12 | 1<<1 | 1<<2, 1 << 32, s.SigQ})
	equal(t, "rest", []any{s.Threads, s.NoNewPrivs, s.Seccomp, s.SeccompCount, s.HasMM, s.VmLck, s.THPEnabled, s.UntagMask, s.CPUsAllowed, s.MemsAllowed},
		[]any{2, true, 0, 0, true, uint64(8192), true, uint64(math.MaxUint64), "0-1", "0"})
	if s.CapEff == 0 || s.CapEff != s.CapBnd || s.VmSize != st.VSize {
		t.Errorf("status %+v", s)
	}
	equal(t, "lines of status that have no field", keys(s.Extra), []string{"Speculation_Store_Bypass", "SpeculationIndirectBranch"})

	equal(t, "comm", must(p.Comm())(t), victimName)
	threads := must(p.Threads())(t)
	if len(threads) != 2 || threads[0] != pid {
		t.Fatalf("threads %v", threads)
	}
	equal(t, "thread's comm", must(proc.Thread(pid, threads[1]).Comm())(t), "second thread")
	equal(t, "thread's exit signal", must(proc.Thread(pid, threads[1]).Stat())(t).ExitSignal, -1)
	equal(t, "children", len(must(proc.Thread(pid, pid).Children())(t)), 2)
	equal(t, "cmdline", SplitArgs(must(p.Cmdline())(t)), []string{"./victim"})
	equal(t, "environ", SplitArgs(must(p.Environ())(t)), []string(nil))
	equal(t, "loginuid", must(p.LoginUID())(t), uint32(math.MaxUint32))
	equal(t, "oom_score_adj", must(p.OOMScoreAdj())(t), 0)
	equal(t, "personality", must(p.Personality())(t), uint32(0))
	equal(t, "uid_map", must(p.UIDMap())(t), []IDMap{{0, 0, math.MaxUint32}})
	equal(t, "pid namespace", must(p.NS("pid_for_children"))(t), Namespace{"pid", 4026531836})
	equal(t, "exe", strings.HasSuffix(must(p.Link("exe"))(t), "/victim"), true)
	if last := must(proc.LastPID())(t); last < pid {
		t.Errorf("last pid %d", last)
	}
	equal(t, "processes", must(proc.Processes())(t), []int{pid})

	auxv := must(p.Auxv(8))(t)
	at := map[uint64]uint64{}
	for i := 0; i < len(auxv); i += 2 {
		at[auxv[i]] = auxv[i+1]
	}
	if at[6] != 4096 || at[17] != 100 || at[0] != 0 || at[33] == 0 {
		t.Errorf("auxv %v", at)
	}

	limits := must(p.Limits())(t)
	equal(t, "RLIMIT_NOFILE", limits[7], Limit{100, 200})
	equal(t, "RLIMIT_CPU", limits[0], Limit{Infinity, Infinity})
	equal(t, "RLIMIT_CORE", limits[4], Limit{0, Infinity})

	equal(t, "timers", must(p.Timers())(t), []Timer{
		{ID: 2, Signal: 34, Value: 0xdeadbeef12345678, Notify: "none", PID: pid, ClockID: 0},
		{ID: 1, Signal: 34, Value: 0xdeadbeef12345678, Notify: "signal", Thread: true, PID: pid, ClockID: -2},
		{ID: 0, Signal: 34, Value: 0xdeadbeef12345678, Notify: "signal", PID: pid, ClockID: 1},
	})

	groups := must(p.Cgroup())(t)
	equal(t, "cgroup", []Cgroup{groups[0], groups[len(groups)-1]}, []Cgroup{
		{ID: 9, Controllers: []string{"name=systemd"}, Path: "/user.slice/test.scope"}, {Path: "/user.slice/test.scope"},
	})

	mounts := must(p.MountInfo())(t)
	var points []string
	for _, m := range mounts {
		points = append(points, m.Point)
	}
	equal(t, "mount points", points, []string{"/", "/mount point", `/back\slash`, "/#hash", "/shared"})
	root, shared := mounts[0], mounts[4]
	equal(t, "root", root, Mount{ID: root.ID, Parent: root.Parent, Minor: root.Minor, Root: "/", Point: "/", Options: "rw,relatime", FSType: "tmpfs", Source: "source with blank", SBOption: "rw,size=8192k"})
	equal(t, "shared", []any{shared.Root, shared.Shared}, []any{"/shared", 1})
}

func keys(fields []Field) []string {
	all := []string{}
	for _, f := range fields {
		all = append(all, f.Key)
	}
	return all
}

func TestFixtureMemory(t *testing.T) {
	proc, pid := fixture(t, "linux-6.18.txtar")
	p := proc.Process(pid)
	maps := must(p.Maps())(t)
	var smaps []Smap
	if err := p.Smaps(func(m *Smap) error { smaps = append(smaps, *m); return nil }); err != nil {
		t.Fatal(err)
	}
	var fromSmaps []Mapping
	for _, m := range smaps {
		fromSmaps = append(fromSmaps, m.Mapping)
		if m.Size != m.End-m.Start || m.Rss > m.Size || m.KernelPageSize != 4096 || len(m.Extra) != 0 {
			t.Errorf("%+v", m)
		}
	}
	equal(t, "smaps and maps", fromSmaps, maps)
	n := 0
	if err := p.Mappings(func(m *Smap) error {
		want := smaps[n]
		n++
		equal(t, "mapping without sizes", *m, Smap{
			Mapping: want.Mapping, THPEligible: want.THPEligible, ProtectionKey: want.ProtectionKey, Flags: want.Flags, UnknownFlags: want.UnknownFlags,
		})
		return nil
	}); err != nil || n != len(smaps) {
		t.Errorf("%d mappings without sizes, %v", n, err)
	}
	if len(maps) < 30 || maps[0].Start != 0x400000 || maps[0].Perm != PermRead || maps[len(maps)-1].Perm != PermExec || maps[len(maps)-1].Path != "[vsyscall]" {
		t.Errorf("maps %+v", maps)
	}
	var paths []string
	for _, m := range smaps {
		if i := strings.LastIndexByte(m.Path, '/'); i > 4 {
			paths = append(paths, m.Path[i+1:])
		}
	}
	equal(t, "paths", slices.Compact(paths), []string{"victim", "gone (deleted)", "really (deleted)", "with\nescape", "with\nline feed", "with blank"})

	find := func(what string, match func(Smap) bool) Smap {
		t.Helper()
		i := slices.IndexFunc(smaps, match)
		if i < 0 {
			t.Fatalf("no mapping %s", what)
		}
		return smaps[i]
	}
	find("that is not inherited", func(m Smap) bool { return m.Flags.Has(VMDontCopy | VMDontDump) })
	if m := find("that is locked", func(m Smap) bool { return m.Flags.Has(VMLocked) && !m.Flags.Has(VMLockOnFault) }); m.Locked == 0 {
		t.Errorf("locked %+v", m)
	}
	find("without reserve", func(m Smap) bool { return m.Flags.Has(VMNoReserve) && m.Perm == 0 })
	find("that grows down", func(m Smap) bool { return m.Flags.Has(VMGrowsDown) && m.Path != "[stack]" })
	find("that is wiped", func(m Smap) bool { return m.Flags.Has(VMWipeOnFork) })
	shared := find("that is shared", func(m Smap) bool { return m.Path == "/dev/zero (deleted)" })
	if !shared.Flags.Has(VMShared|VMMayShare) || shared.Perm != PermRead|PermWrite|PermShared || shared.Perm.String() != "rw-s" {
		t.Errorf("shared %+v", shared)
	}
	find("that is locked on fault", func(m Smap) bool { return m.Flags.Has(VMLocked | VMLockOnFault) })
	memfd := find("of a memfd", func(m Smap) bool { return m.Path == "/memfd:a memfd (deleted)" })
	if memfd.Major != 0 || memfd.Minor != 1 || memfd.Inode == 0 {
		t.Errorf("memfd %+v", memfd)
	}
	if m := smaps[1]; m.Major != 0 || m.Minor != 0x28 || m.Offset != 0x1000 || m.Flags != VMRead|VMExec|VMMayRead|VMMayWrite|VMMayExec {
		t.Errorf("text %+v", m)
	}
}

func TestFixtureFDs(t *testing.T) {
	proc, pid := fixture(t, "linux-6.18.txtar")
	p := proc.Process(pid)
	fds := must(p.FDs())(t)
	equal(t, "fds", fds, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	info := map[int]FDInfo{}
	for _, fd := range fds {
		f := must(p.FDInfo(fd))(t)
		if f.MntID == 0 || f.Ino == 0 {
			t.Errorf("fd %d: %+v", fd, f)
		}
		info[fd] = f
	}
	table := must(p.Descriptors())(t)
	equal(t, "numbers", must(table.Numbers())(t), fds)
	for _, fd := range fds {
		equal(t, "info of a descriptor", must(table.Info(fd))(t), info[fd])
		equal(t, "link of a descriptor", must(table.Link(fd))(t), must(p.Link("fd/"+strconv.Itoa(fd)))(t))
	}
	if f, err := table.Info(99); err == nil {
		t.Errorf("a descriptor that there is not: %+v", f)
	}
	if err := table.Close(); err != nil {
		t.Error(err)
	}
	lock := func(id int, kind, mode, typ string, pid int, ino uint64, start, end int64) Lock {
		return Lock{ID: id, Kind: kind, Mode: mode, Type: typ, PID: pid, Minor: 0x28, Inode: ino, Start: start, End: end}
	}
	flock := lock(1, "FLOCK", "ADVISORY", "WRITE", pid, 8, 0, math.MaxInt64)
	posix := lock(1, "POSIX", "ADVISORY", "WRITE", pid, 9, 5, 14)
	ofd := lock(2, "OFDLCK", "ADVISORY", "READ", -1, 9, 100, math.MaxInt64)
	lease := lock(1, "LEASE", "ACTIVE", "READ", pid, 10, 0, math.MaxInt64)
	equal(t, "flock", info[3], FDInfo{Flags: 0o2100002, MntID: info[3].MntID, Ino: 8, Locks: []Lock{flock}})
	equal(t, "locks", info[4], FDInfo{Pos: 77, Flags: 0o102002, MntID: info[3].MntID, Ino: 9, Locks: []Lock{posix, ofd}})
	equal(t, "lease", info[5].Locks, []Lock{lease})
	all := must(proc.Locks())(t)
	lease.ID, ofd.ID, posix.ID, flock.ID = 1, 2, 3, 4
	equal(t, "/proc/locks", all, []Lock{lease, ofd, posix, flock})

	equal(t, "eventfd", info[6].EventFD, &EventFD{Count: 0xabcdef, ID: 1, Semaphore: true, SemaphoreKnown: true})
	equal(t, "epoll", info[7].EventPoll, []EventPollTarget{{TFD: 6, Events: 0x80000019, Data: math.MaxUint64, Ino: 0x40e, Dev: 0x10}})
	equal(t, "signalfd", info[8].SigMask, new(uint64(1<<63|1)))
	equal(t, "timerfd", info[9].TimerFD, &TimerFD{ClockID: 7, Value: Timespec{99999, info[9].TimerFD.Value.Nsec}, Interval: Timespec{1000, 5}})
	equal(t, "inotify", info[10].Inotify[1], InotifyWatch{WD: 1, Ino: 8, Dev: 0x28, Mask: 2, HandleType: 1, Handle: info[10].Inotify[1].Handle})
	if len(info[10].Inotify) != 2 || len(info[10].Inotify[0].Handle) != 12 {
		t.Errorf("inotify %+v", info[10].Inotify)
	}
	equal(t, "pidfd", info[11].PidFD, &PidFD{PID: pid, NSPID: []int{pid}})
	equal(t, "O_PATH", info[12].Flags, uint32(0o10000000))
	equal(t, "fanotify", info[13].Extra, []string{"fanotify flags:0 event-flags:8000"})
	equal(t, "pipes", []uint32{info[14].Flags, info[15].Flags}, []uint32{0, 0o40001})
	for fd, f := range info {
		if len(f.Extra) != 0 && fd != 13 {
			t.Errorf("fd %d: lines without a field: %q", fd, f.Extra)
		}
	}
}
