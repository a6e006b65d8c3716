package image

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stasis.example/image/entry"
)

// golden opens a directory that CRIU made; see testdata/golden/record.sh.
func golden(t testing.TB, name string) Dir {
	t.Helper()
	d, err := OpenDir(filepath.Join("testdata", "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func readAll[T any, P interface {
	*T
	entry.Message
}](t testing.TB, d Dir, typ Type, id uint64) []T {
	t.Helper()
	all, err := ReadAll[T, P](d, typ, id)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// rewrite reads a whole image and writes it again with ours.
func rewrite(t *testing.T, d Dir, typ Type, id uint64, newMessage func() entry.Message) []byte {
	t.Helper()
	r, err := Open(d, typ, id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	w := NewWriter(&out, typ)
	first := true
	for {
		m := newMessage()
		if (typ == Pagemap || typ == PagemapShmem) && first {
			m = new(entry.PagemapHead)
		}
		first = false
		err := r.Next(m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Put(m); err != nil {
			t.Fatal(err)
		}
		if p, ok := m.(*entry.PipeData); ok {
			if _, err := io.Copy(w, r.Payload(int64(p.Bytes))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestGoldenBytes reads every image that CRIU made and writes it again: the same bytes, nothing lost on the way.
func TestGoldenBytes(t *testing.T) {
	messages := map[Type]func() entry.Message{
		Inventory: func() entry.Message { return new(entry.Inventory) }, PSTree: func() entry.Message { return new(entry.PSTree) },
		Core: func() entry.Message { return new(entry.Core) }, IDs: func() entry.Message { return new(entry.TaskKobjIDs) },
		MM: func() entry.Message { return new(entry.MM) }, FS: func() entry.Message { return new(entry.FS) },
		FDInfo: func() entry.Message { return new(entry.FDInfo) }, Files: func() entry.Message { return new(entry.File) },
		Pagemap: func() entry.Message { return new(entry.PagemapEntry) }, TimeNS: func() entry.Message { return new(entry.TimeNS) },
		Seccomp: func() entry.Message { return new(entry.Seccomp) }, StatsDump: func() entry.Message { return new(entry.Stats) },
		PipesData: func() entry.Message { return new(entry.PipeData) }, FIFOData: func() entry.Message { return new(entry.PipeData) },
	}
	for _, name := range []string{"zoo", "tree"} {
		d := golden(t, name)
		names, err := d.Names()
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, file := range names {
			typ, id, ok := ParseFile(file)
			if !ok {
				t.Errorf("%s/%s: of no type", name, file)
			}
			if typ == Pages || !ok {
				continue
			}
			seen++
			newMessage := messages[typ]
			if newMessage == nil {
				t.Errorf("%s/%s: no message for %v", name, file, typ)
				continue
			}
			want, err := os.ReadFile(filepath.Join("testdata", "golden", name, file))
			if err != nil {
				t.Fatal(err)
			}
			if got := rewrite(t, d, typ, id, newMessage); !bytes.Equal(got, want) {
				t.Errorf("%s/%s\n got % x\nwant % x", name, file, got, want)
			}
		}
		if seen < 12 {
			t.Errorf("%s: only %d images", name, seen)
		}
	}
}

func TestGoldenZoo(t *testing.T) {
	d := golden(t, "zoo")
	inv, err := ReadInventory(d)
	if err != nil {
		t.Fatal(err)
	}
	if inv.ImgVersion != VersionV1_1 || !inv.GetFDInfoPerID() || inv.RootIDs == nil {
		t.Errorf("inventory %+v", inv)
	}
	tree, err := ReadPSTree(d)
	if err != nil {
		t.Fatal(err)
	}
	if len(tree) != 1 || len(tree[0].Threads) != 2 || tree[0].Threads[0] != tree[0].PID {
		t.Fatalf("pstree %+v", tree)
	}
	t.Run("core", func(t *testing.T) { zooCore(t, d, tree[0]) })
	t.Run("files", func(t *testing.T) { zooFiles(t, d, uint64(tree[0].PID)) })
	t.Run("memory", func(t *testing.T) { zooMemory(t, d, uint64(tree[0].PID)) })
	t.Run("pages", func(t *testing.T) { zooPages(t, d, uint64(tree[0].PID)) })
}

func zooCore(t *testing.T, d Dir, p entry.PSTree) {
	root := uint64(p.PID)
	var core entry.Core
	if err := ReadOne(d, Core, root, &core); err != nil {
		t.Fatal(err)
	}
	tc, th := core.TC, core.ThreadCore
	if core.Mtype != entry.MarchX86_64 || tc == nil || th == nil || core.ThreadInfo == nil {
		t.Fatalf("core %+v", core)
	}
	if tc.TaskState != entry.TaskAlive || tc.Comm != "victim" || len(tc.Sigactions) != 62 || len(tc.Rlimits.Rlimits) != 16 {
		t.Errorf("task core %+v", tc)
	}
	if nofile := tc.Rlimits.Rlimits[7]; nofile.Cur != 100 || nofile.Max != 200 {
		t.Errorf("RLIMIT_NOFILE %+v", nofile)
	}
	if tc.Timers.Real.Isec != 3600 || tc.Timers.Real.Iusec != 1 || len(tc.Timers.Posix) != 1 || tc.Timers.Posix[0].Isec != 50 {
		t.Errorf("timers %+v", tc.Timers)
	}
	if q := tc.SignalsS; q == nil || len(q.Signals) != 1 || len(q.Signals[0].Siginfo) != 128 || q.Signals[0].Siginfo[0] != 37 {
		t.Errorf("shared queue %+v", q)
	}
	if tc.BlkSigset != 1<<9|1<<36 || th.RseqEntry == nil || th.Creds == nil || len(th.Creds.CapEff) != 2 {
		t.Errorf("thread core %+v", th)
	}
	if fp := core.ThreadInfo.FPRegs; len(fp.XMMSpace) != 64 || fp.Xsave == nil || len(fp.Xsave.YMMHSpace) != 64 {
		t.Errorf("fpregs %+v", fp)
	}
	if err := ReadOne(d, Core, uint64(p.Threads[1]), &core); err != nil || core.TC != nil || core.ThreadCore.GetBlkSigset() != 1<<11|1<<9|1<<36 {
		t.Errorf("second thread %v, %+v", err, core)
	}

}

func zooFiles(t *testing.T, d Dir, root uint64) {
	var ids entry.TaskKobjIDs
	if err := ReadOne(d, IDs, root, &ids); err != nil {
		t.Fatal(err)
	}
	files := map[uint32]entry.File{}
	for _, f := range readAll[entry.File](t, d, Files, 0) {
		files[f.ID] = f
	}
	fds := readAll[entry.FDInfo](t, d, FDInfo, uint64(ids.FilesID))
	kinds := map[uint32]entry.File{}
	for _, fd := range fds {
		if files[fd.ID].Type != fd.Type {
			t.Errorf("fd %d: %v in fdinfo, %v in files", fd.FD, fd.Type, files[fd.ID].Type)
		}
		kinds[fd.FD] = files[fd.ID]
	}
	if p := kinds[4].Pipe; p == nil || p.Flags != 0o4001 {
		t.Errorf("fd 4: %+v", kinds[4])
	}
	if e := kinds[5].Efd; e == nil || e.Counter != 42 {
		t.Errorf("fd 5: %+v", kinds[5])
	}
	if e := kinds[6].Epfd; e == nil || len(e.TFD) != 1 || e.TFD[0].TFD != 5 || e.TFD[0].Data != 0x1122334455667788 {
		t.Errorf("fd 6: %+v", kinds[6])
	}
	if e := kinds[7].TFD; e == nil || e.Isec != 1000 || e.Insec != 5 || e.ClockID != 1 {
		t.Errorf("fd 7: %+v", kinds[7])
	}
	if e := kinds[8].Sgfd; e == nil || e.Sigmask != 1<<9|1<<36 {
		t.Errorf("fd 8: %+v", kinds[8])
	}
	if e := kinds[9].Reg; e == nil || !strings.HasSuffix(e.Name, "/regular") || e.Pos != 4 || e.GetSize() != 8192 || e.GetMode() != 0o100640 || e.GetMntID() != -1 {
		t.Errorf("fd 9: %+v", kinds[9])
	}
	if kinds[9].ID != kinds[10].ID {
		t.Error("fds 9 and 10 are not one description")
	}
	if e := kinds[11].FIFO; e == nil || files[e.GetRegfID()].Reg == nil {
		t.Errorf("fd 11: %+v", kinds[11])
	}
	if e := kinds[12].Ify; e == nil || len(e.WD) != 1 || e.WD[0].Mask&2 == 0 {
		t.Errorf("fd 12: %+v", kinds[12])
	}
	var fs entry.FS
	if err := ReadOne(d, FS, root, &fs); err != nil || fs.GetUmask() != 0o27 || files[fs.CwdID].Reg == nil {
		t.Errorf("fs %+v, %v", fs, err)
	}
}

func zooMemory(t *testing.T, d Dir, root uint64) {
	var mm entry.MM
	if err := ReadOne(d, MM, root, &mm); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(mm.VMAs, func(v entry.VMA) bool { return v.Status&entry.VMAFileShared != 0 }) {
		t.Error("no shared file mapping")
	}
	for i := 1; i < len(mm.VMAs); i++ {
		if mm.VMAs[i].Start < mm.VMAs[i-1].End {
			t.Errorf("mapping %d overlaps", i)
		}
	}
}

func zooPages(t *testing.T, d Dir, root uint64) {
	c, err := OpenChain(d, Pagemap, root, 4096, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	total := uint64(0)
	for {
		e, err := c.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Offset != int64(total*4096) {
			t.Errorf("extent %+v, want offset %#x", e, total*4096)
		}
		total += e.Pages
	}
	var stats entry.Stats
	if err := ReadOne(d, StatsDump, 0, &stats); err != nil {
		t.Fatal(err)
	}
	if total == 0 || stats.Dump == nil || stats.Dump.PagesWritten != total {
		t.Errorf("%d pages, stats %+v", total, stats.Dump)
	}
}

func TestGoldenTree(t *testing.T) {
	d := golden(t, "tree")
	tree, err := ReadPSTree(d)
	if err != nil {
		t.Fatal(err)
	}
	states := map[uint32]int{}
	for _, p := range tree {
		var core entry.Core
		if err := ReadOne(d, Core, uint64(p.PID), &core); err != nil {
			t.Fatal(err)
		}
		states[core.TC.TaskState]++
		switch core.TC.TaskState {
		case entry.TaskStopped:
			if core.TC.GetStopSigno() != 19 || p.PGID != p.PID || p.PPID != tree[0].PID {
				t.Errorf("stopped %+v %+v", p, core.TC)
			}
		case entry.TaskDead, entry.TaskZombie:
			if core.TC.ExitCode != 3<<8 {
				t.Errorf("dead %+v %+v", p, core.TC)
			}
		}
	}
	if states[entry.TaskAlive] != 3 || states[entry.TaskStopped] != 1 || states[entry.TaskDead]+states[entry.TaskZombie] != 1 {
		t.Errorf("states %v", states)
	}
	for _, p := range readPipeData(t, d) {
		if p != "" {
			t.Errorf("pipe with %q", p)
		}
	}
	if got := readPipeData(t, golden(t, "zoo")); !slices.Contains(got, "in the pipe") {
		t.Errorf("pipes with %q", got)
	}
}

func readPipeData(t *testing.T, d Dir) (all []string) {
	t.Helper()
	r, err := Open(d, PipesData, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		var e entry.PipeData
		err := r.Next(&e)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Payload(int64(e.Bytes)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
}

func TestBadTrees(t *testing.T) {
	for name, procs := range map[string][]entry.PSTree{
		"empty":          nil,
		"root's parent":  {{PID: 1, PPID: 2}},
		"itself":         {{PID: 1}, {PID: 2, PPID: 2}},
		"loop":           {{PID: 1}, {PID: 2, PPID: 3}, {PID: 3, PPID: 2}},
		"two roots":      {{PID: 1}, {PID: 2}},
		"twice":          {{PID: 1}, {PID: 2, PPID: 1}, {PID: 2, PPID: 1}},
		"no pid":         {{}},
		"pid too big":    {{PID: 1}, {PID: 1<<22 + 1, PPID: 1}},
		"parent missing": {{PID: 1}, {PID: 2, PPID: 7}},
	} {
		d := NewMemDir(nil)
		var all []entry.Message
		for i := range procs {
			all = append(all, &procs[i])
		}
		mustOS(t, WriteAll(d, PSTree, 0, all...))
		if _, err := ReadPSTree(d); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVersions(t *testing.T) {
	for v, want := range map[uint32]error{1: errors.ErrUnsupported, 2: nil, VersionStasis: nil, 3: errors.ErrUnsupported} {
		d := NewMemDir(nil)
		mustOS(t, WriteAll(d, Inventory, 0, &entry.Inventory{ImgVersion: v}))
		if _, err := ReadInventory(d); !errors.Is(err, want) {
			t.Errorf("version %d: %v, want %v", v, err, want)
		}
	}
}
