package plan

import (
	"errors"
	"io/fs"
	"math"
	"slices"
	"strings"
	"testing"

	"stasis.example/engine/internal/images"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// TestRefusals damages one thing after the other in what CRIU has written. Each has to be refused, and the reason named.
func TestRefusals(t *testing.T) {
	const (
		family = "testdata/criu/family"
		state  = "testdata/criu/state"
		files  = "testdata/criu/files"
	)
	core := func(change func(*entry.Core)) func(*testing.T, image.Dir) {
		return func(t *testing.T, d image.Dir) { edit(t, d, image.Core, rootOf(t, d), change) }
	}
	mm := func(change func(*entry.MM)) func(*testing.T, image.Dir) {
		return func(t *testing.T, d image.Dir) { edit(t, d, image.MM, rootOf(t, d), change) }
	}
	ids := func(change func(*entry.TaskKobjIDs)) func(*testing.T, image.Dir) {
		return func(t *testing.T, d image.Dir) { edit(t, d, image.IDs, rootOf(t, d), change) }
	}
	file := func(typ entry.FDType, change func(*entry.File)) func(*testing.T, image.Dir) {
		return func(t *testing.T, d image.Dir) {
			edit(t, d, image.Files, 0, func(f *entry.File) {
				if f.Type == typ {
					change(f)
				}
			})
		}
	}
	nth := func(n int, change func(*entry.PSTree)) func(*testing.T, image.Dir) {
		return func(t *testing.T, d image.Dir) {
			i := 0
			edit(t, d, image.PSTree, 0, func(p *entry.PSTree) {
				if i == n {
					change(p)
				}
				i++
			})
		}
	}
	unsupported, invalid := errors.ErrUnsupported, images.ErrInvalid
	for _, c := range []struct {
		name, golden string
		damage       func(*testing.T, image.Dir)
		want         string
		cause        error
	}{
		{"version", state, func(t *testing.T, d image.Dir) {
			edit(t, d, image.Inventory, 0, func(i *entry.Inventory) { i.ImgVersion = 99 })
		}, "version 99 is not known", unsupported},
		{"plugins", state, func(t *testing.T, d image.Dir) {
			edit(t, d, image.Inventory, 0, func(i *entry.Inventory) { i.PluginsEntry.Plugins = []string{"cuda"} })
		}, `made with plugins of CRIU's: ["cuda"]`, unsupported},

		{"two of a pid", family, nth(3, func(p *entry.PSTree) { p.PID = p.PPID }), "occurs twice", image.ErrCorrupt},
		{"loop", family, nth(2, func(p *entry.PSTree) { p.PPID = p.PID }), "does not stand before it", image.ErrCorrupt},
		{"session of a thread", state, nth(0, func(p *entry.PSTree) { p.SID, p.PGID = p.Threads[1], p.Threads[1] }), "is not the leader of its session", unsupported},
		{"thread twice", state, nth(0, func(p *entry.PSTree) { p.Threads = append(p.Threads, p.Threads[1]) }), "is one of process", invalid},
		{"threads of another", state, nth(0, func(p *entry.PSTree) { p.Threads = p.Threads[1:] }), "do not begin with itself", invalid},
		{"leader in another group", family, nth(1, func(p *entry.PSTree) { p.PGID = 4 }), "leads session", invalid},
		{"group in two sessions", family, nth(9, func(p *entry.PSTree) { p.SID = 77 }), "in session 77", invalid},
		{"child of the dead", family, nth(16, func(p *entry.PSTree) { p.PPID = p.PID - 1 }), "the dead have no children", invalid},

		{"architecture", state, core(func(c *entry.Core) { c.Mtype = entry.MarchS390 }), "architecture S390", unsupported},
		{"state", state, core(func(c *entry.Core) { c.TC.TaskState = 77 }), "task state 77 is not known", invalid},
		{"stop signal", state, core(func(c *entry.Core) { c.TC.TaskState = entry.TaskStopped; c.TC.StopSigno = new(uint32(9)) }), "signal 9 does not stop", invalid},
		{"comm", state, core(func(c *entry.Core) { c.TC.Comm = "sixteen bytes ab" }), "longer than 15 bytes", invalid},
		{"comm of a thread", state, core(func(c *entry.Core) { c.ThreadCore.Comm = new("a\x00b") }), "zero byte", invalid},
		{"thread core", state, core(func(c *entry.Core) { c.ThreadCore = nil }), "says nothing about the thread", invalid},
		{"registers", state, core(func(c *entry.Core) { c.ThreadInfo = nil }), "the registers are missing", invalid},
		{"32 bit", state, core(func(c *entry.Core) { c.ThreadInfo.GPRegs.Mode = new(entry.RegsModeCompat) }), "a 32-bit thread", unsupported},
		{"xmm", state, core(func(c *entry.Core) { c.ThreadInfo.FPRegs.XMMSpace = nil }), "words of floating-point registers", invalid},
		{"xstate in use", state, core(func(c *entry.Core) { c.ThreadInfo.FPRegs.Xsave.XstateBv |= 1 << 18 }), "extended state 18 was in use", invalid},
		{"xstate size", state, core(func(c *entry.Core) { c.ThreadInfo.FPRegs.Xsave.Hi16ZMM = []uint64{1} }), "has 8 bytes, want 1024", invalid},
		{"shadow stack", state, core(func(c *entry.Core) { c.ThreadInfo.FPRegs.Xsave.CET.CET = 1 }), "shadow stack", unsupported},
		{"sigactions", state, core(func(c *entry.Core) { c.TC.Sigactions = c.TC.Sigactions[1:] }), "61 signal dispositions", unsupported},
		{"siginfo", state, core(func(c *entry.Core) { c.TC.SignalsS.Signals[0].Siginfo = []byte("short") }), "has 5 bytes, want 128", invalid},
		{"signal 0", state, core(func(c *entry.Core) { clear(c.TC.SignalsS.Signals[0].Siginfo) }), "has the number 0", invalid},
		{"itimer", state, core(func(c *entry.Core) { c.TC.Timers.Real.Iusec = 1e6 }), "1000000 and 0 microseconds", invalid},
		{"timer id", state, core(func(c *entry.Core) { c.TC.Timers.Posix[0].ItID = c.TC.Timers.Posix[1].ItID }), "occurs twice", invalid},
		{"timer thread", state, core(func(c *entry.Core) { c.TC.Timers.Posix[0].NotifyThreadID = new(int32(4)) }), "for thread 4, which the process has not", invalid},
		{"timer signal", state, core(func(c *entry.Core) { c.TC.Timers.Posix[0].SiSigno = 65 }), "65 is no signal", invalid},
		{"limits", state, core(func(c *entry.Core) { c.TC.Rlimits.Rlimits[4].Max = 1 }), "above its maximum", invalid},
		{"capabilities", state, core(func(c *entry.Core) { c.ThreadCore.Creds.CapEff[1] |= 1 << 31 }), "that are not permitted", invalid},
		{"capability words", state, core(func(c *entry.Core) { c.ThreadCore.Creds.CapBnd = nil }), "bounding capabilities of 0 words", invalid},
		{"groups", state, core(func(c *entry.Core) { c.ThreadCore.Creds.Groups = make([]uint32, 70000) }), "70000 groups", invalid},
		{"label", state, core(func(c *entry.Core) { c.ThreadCore.Creds.LSMProfile = new("docker-default") }), `security label "docker-default"`, unsupported},
		{"seccomp", state, core(func(c *entry.Core) { c.ThreadCore.SeccompMode = new(entry.SeccompModeFilter) }), "seccomp, mode filter", unsupported},
		{"deadline", state, core(func(c *entry.Core) { c.ThreadCore.SchedPolicy = new(uint32(6)) }), "scheduling by deadline", unsupported},
		{"realtime", state, core(func(c *entry.Core) { c.ThreadCore.SchedPolicy = new(uint32(1)) }), "realtime priority 0", invalid},
		{"oom", state, core(func(c *entry.Core) { c.TC.OOMScoreAdj = new(int32(1001)) }), "oom_score_adj is 1001", invalid},
		{"death signal", state, core(func(c *entry.Core) { c.ThreadCore.PdeathSig = new(uint32(65)) }), "pdeath_sig 65", invalid},
		{"rseq", state, core(func(c *entry.Core) { c.ThreadCore.RseqEntry.RseqABISize = 0 }), "rseq area of 0 bytes", invalid},

		{"network namespace", state, ids(func(i *entry.TaskKobjIDs) { i.NetNSID = new(uint32(9)) }), "a network namespace of its own", unsupported},
		{"no space", state, ids(func(i *entry.TaskKobjIDs) { i.VMID = 0 }), "the number 0", invalid},
		{"shared memory of strangers", files, func(t *testing.T, d image.Dir) {
			tree, _ := image.ReadPSTree(d)
			edit(t, d, image.IDs, uint64(tree[2].PID), func(i *entry.TaskKobjIDs) { i.VMID = 2; i.SighandID = 3 })
			edit(t, d, image.IDs, uint64(tree[1].PID), func(i *entry.TaskKobjIDs) { i.SighandID = 3 })
		}, "shares its signal handlers with process", unsupported},

		{"overlap", state, mm(func(m *entry.MM) { m.VMAs[1].Start = m.VMAs[0].Start }), "begins before the end of the one before", invalid},
		{"kernel space", state, mm(func(m *entry.MM) { m.VMAs[len(m.VMAs)-3].End = 1 << 47 }), "is not in user space", invalid},
		{"half a page", state, mm(func(m *entry.MM) { m.VMAs[3].End-- }), "is not one or more pages", invalid},
		{"backwards", state, mm(func(m *entry.MM) { m.VMAs[3].End = m.VMAs[3].Start }), "is not one or more pages", invalid},
		{"other vsyscall", state, mm(func(m *entry.MM) { m.VMAs[len(m.VMAs)-2].Start -= 4096 }), "is not the vsyscall page", invalid},
		{"protection", state, mm(func(m *entry.MM) { m.VMAs[3].Prot = 8 }), "protection 0x8", invalid},
		{"shared", state, mm(func(m *entry.MM) { m.VMAs[6].Status = entry.VMARegular | entry.VMAAnonShared }), "is shared memory", unsupported},
		{"huge", state, mm(func(m *entry.MM) { m.VMAs[6].Flags |= 0x40000 }), "of huge pages", unsupported},
		{"future", state, mm(func(m *entry.MM) { m.VMAs[6].Status |= 1 << 25 }), "is not known", unsupported},
		{"fixed", state, mm(func(m *entry.MM) { m.VMAs[6].Flags |= 0x10 }), "flags 0x32", invalid},
		{"mapped file", state, mm(func(m *entry.MM) { m.VMAs[0].ShmID = 99 }), "its file 99 is not in files.img", invalid},
		{"mapped file, 64 bits", state, mm(func(m *entry.MM) { m.VMAs[0].ShmID |= 1 << 32 }), "is not in files.img", invalid},
		{"program", state, mm(func(m *entry.MM) { m.ExeFileID = 99 }), "the program, file 99, is not", invalid},
		{"open flags", state, mm(func(m *entry.MM) { m.VMAs[0].FDFlags = new(uint32(0o1100)) }), "is to be opened with 01100", invalid},
		{"guard", state, mm(func(m *entry.MM) { g := &m.VMAs[len(m.VMAs)-1]; g.Start, g.End = 4096, 8192 }), "are in no mapping", invalid},
		{"dumpable", state, mm(func(m *entry.MM) { m.Dumpable = new(int32(3)) }), "dumpable is 3", invalid},
		{"page size", state, mm(func(m *entry.MM) {
			for i := 0; i < len(m.MMSavedAuxv); i += 2 {
				if m.MMSavedAuxv[i] == 6 {
					m.MMSavedAuxv[i+1] = 5000
				}
			}
		}), "pages of 5000 bytes", invalid},
		{"aio", state, mm(func(m *entry.MM) { m.AIOs = []entry.AIORing{{}} }), "io_setup", unsupported},
		{"page without memory", state, mm(func(m *entry.MM) { m.VMAs = m.VMAs[1:]; m.VMAs = append(m.VMAs[:4], m.VMAs[5:]...) }), "there is no memory for the page", invalid},

		{"descriptor without file", files, func(t *testing.T, d image.Dir) {
			edit(t, d, image.FDInfo, 2, func(s *entry.FDInfo) {
				if s.FD == 4 {
					s.ID = 999
				}
			})
		}, "descriptor 4: file 999 is not in files.img", invalid},
		{"descriptors out of order", files, func(t *testing.T, d image.Dir) {
			edit(t, d, image.FDInfo, 2, func(s *entry.FDInfo) {
				if s.FD == 200 {
					s.FD = 1 << 31
				}
			})
		}, "no such number can be", invalid},
		{"create", files, file(entry.FDTypeReg, func(f *entry.File) { f.Reg.Flags |= 0o1000 }), "would make, empty or hide a file", invalid},
		{"relative", files, file(entry.FDTypeReg, func(f *entry.File) { f.Reg.Name = "a" }), `"a" is not absolute`, invalid},
		{"way out", files, file(entry.FDTypeReg, func(f *entry.File) { f.Reg.Name = "/a/../../b" }), "is not one that the kernel gives", invalid},
		{"offset", files, file(entry.FDTypeReg, func(f *entry.File) { f.Reg.Pos = 1 << 63 }), "its offset is", invalid},
		{"external", files, file(entry.FDTypeReg, func(f *entry.File) {
			if f.Reg.Name == "/dev/full" {
				f.Reg.Ext, f.Reg.Name = new(true), "file[1:2]"
			}
		}), `hand it in, by the key "file[1:2]"`, unsupported},
		{"socket by name", files, file(entry.FDTypeReg, func(f *entry.File) {
			if f.Reg.Name == "/dev/full" {
				f.Reg.Mode = new(uint32(0o140777))
			}
		}), "/dev/full is a socket", unsupported},
		{"directory", files, file(entry.FDTypeReg, func(f *entry.File) {
			if f.Reg.Name == "/" {
				f.Reg.Mode = new(uint32(0o100777))
			}
		}), "and no directory", invalid},
		{"type without content", files, file(entry.FDTypeEventFD, func(f *entry.File) { f.Efd = nil }), "has nothing of one", invalid},
		{"two numbers", files, file(entry.FDTypeEventFD, func(f *entry.File) { f.Efd.ID++ }), "it has two numbers", invalid},
		{"type unknown", files, file(entry.FDTypeEventFD, func(f *entry.File) { f.Type = 4711 }), "file of type 4711", unsupported},
		{"eventfd", files, file(entry.FDTypeEventFD, func(f *entry.File) { f.Efd.Counter = ^uint64(0) }), "which it cannot reach", invalid},
		{"timerfd", files, file(entry.FDTypeTimerFD, func(f *entry.File) { f.TFD.Vnsec = 1e9 }), "are no times", invalid},
		{"timerfd clock", files, file(entry.FDTypeTimerFD, func(f *entry.File) { f.TFD.ClockID = 5 }), "no timers of clock 5", invalid},
		{"fifo without name", files, file(entry.FDTypeFIFO, func(f *entry.File) { f.FIFO.RegfID = nil }), "the name of the fifo", invalid},
		{"pipe capacity", files, func(t *testing.T, d image.Dir) {
			p := d // the payload has to be kept, so no edit
			r := new(images.Report)
			set := images.Read(p, r)
			for i := range set.Pipes {
				set.Pipes[i].Entry.Size = new(uint32(1))
			}
			if err := set.Write(p); err != nil {
				t.Fatal(err)
			}
		}, "holds 1 bytes, and has 3", invalid},
		{"epoll target", files, file(entry.FDTypeEventPoll, func(f *entry.File) {
			if len(f.Epfd.TFD) > 0 {
				f.Epfd.TFD[0].TFD = 150
			}
		}), "it watches descriptor 150", unsupported},
		{"epoll twice", files, file(entry.FDTypeEventPoll, func(f *entry.File) {
			if len(f.Epfd.TFD) > 0 {
				f.Epfd.TFD[0].TFD = f.Epfd.TFD[1].TFD
			}
		}), "twice", invalid},
		{"epoll circle", files, file(entry.FDTypeEventPoll, func(f *entry.File) {
			if f.ID == 24 {
				f.Epfd.TFD[0].TFD = 20
			}
		}), "in a circle", invalid},
		{"umask", state, func(t *testing.T, d image.Dir) {
			edit(t, d, image.FS, rootOf(t, d), func(f *entry.FS) { f.Umask = new(uint32(0o1000)) })
		}, "umask 01000", invalid},
		{"deleted file of an old CRIU", state, remaps(&entry.RemapFilePath{OrigID: 1, RemapID: 1}), "do not say what stands for it", unsupported},
		{"deleted file of a dead process", state, remaps(&entry.RemapFilePath{OrigID: 1, RemapID: 1, RemapType: new(entry.RemapTypeProcfs)}), "of a process that has ended", unsupported},
		{"deleted file without an image", state, remaps(&entry.RemapFilePath{OrigID: 1, RemapID: 1, RemapType: new(entry.RemapTypeGhost)}), "ghost-file-1.img: the image is missing", fs.ErrNotExist},
		{"deleted file twice", state, remaps(&entry.RemapFilePath{OrigID: 1, RemapID: 1}, &entry.RemapFilePath{OrigID: 1, RemapID: 2}), "file 1 is in it twice", invalid},
		{"deleted what is no file", state, remaps(&entry.RemapFilePath{OrigID: 100000, RemapID: 1}), "is none that has one", unsupported},
		{"deleted file with a name that no dump makes", state, remaps(&entry.RemapFilePath{OrigID: 1, RemapID: 2, RemapType: new(entry.RemapTypeLinked)}), "the name that was made for it is", invalid},
		{"deleted file with a name that is not there", state, remaps(&entry.RemapFilePath{OrigID: 1, RemapID: 100000, RemapType: new(entry.RemapTypeLinked)}), "the file that has a name for it is not there", invalid},
		{"deleted device", state, ghost(&entry.GhostFile{Mode: 0o020666}), "a character device without a name", unsupported},
		{"deleted link to nowhere", state, ghost(&entry.GhostFile{Mode: 0o120777}), "a symbolic link that leads to", invalid},
		{"deleted set-what bit", state, ghost(&entry.GhostFile{Mode: 0o1100644}), "its mode is 01100644", invalid},
		{"deleted directory with chunks", state, ghost(&entry.GhostFile{Mode: 0o040755, Chunks: new(true), Size: new(uint64(0))}), "its mode is 040755", invalid},
		{"deleted file of nobody", state, ghost(&entry.GhostFile{Mode: 0o100644, UID: math.MaxUint32}), "it belongs to uid 4294967295", invalid},
		{"deleted file that was a directory", state, ghost(&entry.GhostFile{Mode: 0o040755}), "and its ghost a directory", invalid},
		{"deleted file of a wrong time", state, ghost(&entry.GhostFile{Mode: 0o100644, Atim: &entry.Timeval{TvUsec: 1e6}}), "1000000 microseconds", invalid},
		{"deleted file too large", state, ghost(&entry.GhostFile{Mode: 0o100644, Chunks: new(true), Size: new(uint64(1 << 63))}), "its size is", invalid},
		{"deleted file, chunk behind the end", state, ghost(&entry.GhostFile{Mode: 0o100644, Chunks: new(true), Size: new(uint64(10))}, &entry.GhostChunk{Off: 8, Len: 4}), "a chunk of 4 bytes at 8", invalid},
		{"deleted file, chunk that wraps", state, ghost(&entry.GhostFile{Mode: 0o100644, Chunks: new(true), Size: new(uint64(10))}, &entry.GhostChunk{Off: 8, Len: math.MaxUint64}), "bytes at 8", invalid},
		{"deleted file, chunk cut off", state, ghost(&entry.GhostFile{Mode: 0o100644, Chunks: new(true), Size: new(uint64(10))}, &entry.GhostChunk{Off: 2, Len: 4}), "payload is cut off", image.ErrCorrupt},
		{"locks", state, func(t *testing.T, d image.Dir) {
			if err := image.WriteAll(d, image.FileLocks, 0, &entry.FileLock{}); err != nil {
				t.Fatal(err)
			}
		}, "filelocks.img: file locks", unsupported},
		{"pages cut off", state, func(t *testing.T, d image.Dir) { write(t, d, "pages-1.img", make([]byte, 4096)) }, "the pagemap tells of", image.ErrCorrupt},
		{"pages compressed", state, func(t *testing.T, d image.Dir) {
			head, run := &entry.PagemapHead{PagesID: 1}, &entry.PagemapEntry{Vaddr: 0x401000, NrPages: new(uint64(1)), Flags: new(uint32(4 | 8))}
			if err := image.WriteAll(d, image.Pagemap, rootOf(t, d), head, run); err != nil {
				t.Fatal(err)
			}
		}, "pages are compressed", unsupported},
		{"pages lazy", state, func(t *testing.T, d image.Dir) {
			head, run := &entry.PagemapHead{PagesID: 1}, &entry.PagemapEntry{Vaddr: 0x401000, NrPages: new(uint64(1)), Flags: new(uint32(2))}
			if err := image.WriteAll(d, image.Pagemap, rootOf(t, d), head, run); err != nil {
				t.Fatal(err)
			}
		}, "with a page server", unsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := load(t, c.golden)
			c.damage(t, d)
			err := refusal(t, d, Options{})
			found := false
			for _, p := range err.Problems {
				if strings.Contains(p.Error(), c.want) {
					found = true
					if !errors.Is(p, c.cause) {
						t.Errorf("the cause of %q is %v, want %v", p, p.Err, c.cause)
					}
				}
			}
			if !found {
				t.Errorf("%q is not in:\n%v", c.want, err)
			}
		})
	}
}

// TestAllAtOnce damages several things: all are told.
func TestAllAtOnce(t *testing.T) {
	d := load(t, "testdata/criu/state")
	root := rootOf(t, d)
	edit(t, d, image.Core, root, func(c *entry.Core) { c.TC.OOMScoreAdj = new(int32(5000)) })
	edit(t, d, image.MM, root, func(m *entry.MM) { m.ExeFileID = 99 })
	if err := d.Remove(image.FS.File(root)); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove("pages-1.img"); err != nil {
		t.Fatal(err)
	}
	if err := image.WriteAll(d, image.FileLocks, 0, &entry.FileLock{}); err != nil {
		t.Fatal(err)
	}
	err := refusal(t, d, Options{})
	for _, want := range []string{"oom_score_adj", "the program, file 99", image.FS.File(root) + ": the image is missing", "pages-1.img", "file locks"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	if len(err.Problems) != 5 {
		t.Errorf("%d problems:\n%v", len(err.Problems), err)
	}
}

// TestUnknownField: what a newer CRIU has added is noted, by name.
func TestUnknownField(t *testing.T) {
	d := load(t, "testdata/criu/state")
	edit(t, d, image.Core, rootOf(t, d), func(c *entry.Core) { c.ThreadCore.Unknown = []byte{0xf8, 0x06, 1} })
	p, err := Make(t.Context(), d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "field 111 of thread_core_entry is not known") {
		t.Errorf("%q", p.Notes)
	}
}

// without returns a copy of a directory in which some images are not.
func without(t *testing.T, d image.Dir, names ...string) image.Dir {
	t.Helper()
	all, err := d.Names()
	if err != nil {
		t.Fatal(err)
	}
	left := image.NewMemDir(nil)
	for _, name := range all {
		if !slices.Contains(names, name) {
			copyFile(t, left, d, name)
		}
	}
	return left
}

// TestShared plans a process that shares nearly everything with its parent: made by flags of clone, its memory filled once. What
// it is said to share it may not have besides.
func TestShared(t *testing.T) {
	d := load(t, "testdata/criu/files")
	tree, err := image.ReadPSTree(d)
	if err != nil {
		t.Fatal(err)
	}
	var root entry.TaskKobjIDs
	if err := image.ReadOne(d, image.IDs, uint64(tree[0].PID), &root); err != nil {
		t.Fatal(err)
	}
	edit(t, d, image.IDs, uint64(tree[2].PID), func(i *entry.TaskKobjIDs) { i.VMID, i.FSID, i.SighandID = root.VMID, root.FSID, root.SighandID })
	pid := uint64(tree[2].PID)
	own := []string{image.MM.File(pid), image.Pagemap.File(pid), image.FS.File(pid)}
	for _, name := range own {
		others := slices.DeleteFunc(slices.Clone(own), func(other string) bool { return other == name })
		_, err := Make(t.Context(), without(t, d, others...), Options{})
		if err == nil || !strings.Contains(err.Error(), name+": process") || !strings.Contains(err.Error(), "has its own") {
			t.Errorf("with %s: %v", name, err)
		}
	}
	p, err := Make(t.Context(), without(t, d, own...), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var share Share
	fills := 0
	for _, s := range p.Steps {
		if s.Op == Fork && s.PID == int(tree[2].PID) {
			share = s.Share
		}
		if s.Op == Fill {
			fills++
		}
	}
	if want := ShareMemory | ShareFiles | ShareFS | ShareHandlers; share != want {
		t.Errorf("it shares %v, want %v", share.names(), want.names())
	}
	if fills != 2 || len(p.Memory) != 2 {
		t.Errorf("%d spaces are filled and %d planned, there are 2", fills, len(p.Memory))
	}
}

// remaps says of files that their names are gone.
func remaps(all ...entry.Message) func(*testing.T, image.Dir) {
	return func(t *testing.T, d image.Dir) {
		t.Helper()
		if err := image.WriteAll(d, image.RemapFilePath, 0, all...); err != nil {
			t.Fatal(err)
		}
	}
}

// ghost says that the first file has no name, and what stands for it.
func ghost(all ...entry.Message) func(*testing.T, image.Dir) {
	return func(t *testing.T, d image.Dir) {
		t.Helper()
		remaps(&entry.RemapFilePath{OrigID: 1, RemapID: 7, RemapType: new(entry.RemapTypeGhost)})(t, d)
		if err := image.WriteAll(d, image.GhostFile, 7, all...); err != nil {
			t.Fatal(err)
		}
	}
}
