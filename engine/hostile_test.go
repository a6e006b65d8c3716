//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"stasis.example/image"
	"stasis.example/image/entry"
	"stasis.example/internal/testkit"
)

// hostile is a dump of a victim, and a copy of it in which something is changed.
type hostile struct {
	t      *testing.T
	victim *testkit.Victim
	path   string // of the copy
	dir    image.Dir
	tree   []entry.PSTree // as it was
}

func (h *hostile) root() uint64 { return uint64(h.tree[0].PID) }

// A mutation is one thing that is changed in images, and what the restore is to say to it: the image, and in it the thing.
type mutation struct {
	name   string
	change func(h *hostile)
	want   []string // nothing for a restore that succeeds, of a victim that is as it was
}

// each changes all entries of an image.
func each[T any, P interface {
	*T
	entry.Message
}](typ image.Type, id func(*hostile) uint64, change func(h *hostile, i int, e *T)) func(*hostile) {
	return func(h *hostile) {
		all, err := image.ReadAll[T, P](h.dir, typ, id(h))
		if err != nil {
			h.t.Fatal(err)
		}
		list := make([]entry.Message, len(all))
		for i := range all {
			change(h, i, &all[i])
			list[i] = P(&all[i])
		}
		if err := image.WriteAll(h.dir, typ, id(h), list...); err != nil {
			h.t.Fatal(err)
		}
	}
}

func noID(*hostile) uint64       { return 0 }
func rootID(h *hostile) uint64   { return h.root() }
func threadID(h *hostile) uint64 { return uint64(h.tree[0].Threads[1]) }

// tableID is the number of the root's descriptor table.
func tableID(h *hostile) uint64 {
	var ids entry.TaskKobjIDs
	if err := image.ReadOne(h.dir, image.IDs, h.root(), &ids); err != nil {
		h.t.Fatal(err)
	}
	return uint64(ids.FilesID)
}

// inTree changes the n-th process of the tree, and may look at the others.
func inTree(n int, change func(p *entry.PSTree, all []entry.PSTree)) func(*hostile) {
	return each(image.PSTree, noID, func(h *hostile, i int, p *entry.PSTree) {
		if i == n {
			change(p, h.tree)
		}
	})
}

// inCore changes the core of the root.
func inCore(change func(*entry.Core)) func(*hostile) {
	return each(image.Core, rootID, func(_ *hostile, _ int, c *entry.Core) { change(c) })
}

func inMM(change func(*entry.MM)) func(*hostile) {
	return each(image.MM, rootID, func(_ *hostile, _ int, m *entry.MM) { change(m) })
}

// inFile changes the file that has a name which ends like this.
func inFile(suffix string, change func(h *hostile, f *entry.File)) func(*hostile) {
	return func(h *hostile) {
		found := false
		each(image.Files, noID, func(h *hostile, _ int, f *entry.File) {
			if f.Reg != nil && strings.HasSuffix(f.Reg.Name, suffix) {
				found = true
				change(h, f)
			}
		})(h)
		if !found {
			h.t.Fatalf("there is no file %s", suffix)
		}
	}
}

func renamed(suffix, to string) func(*hostile) {
	return inFile(suffix, func(_ *hostile, f *entry.File) { f.Reg.Name = to })
}

// pagemap writes another pagemap of the root.
func pagemap(runs ...entry.Message) func(*hostile) {
	return func(h *hostile) {
		head := []entry.Message{&entry.PagemapHead{PagesID: 1}}
		if err := image.WriteAll(h.dir, image.Pagemap, h.root(), append(head, runs...)...); err != nil {
			h.t.Fatal(err)
		}
	}
}

func runOf(addr, n uint64, flags uint32) *entry.PagemapEntry {
	return &entry.PagemapEntry{Vaddr: addr, NrPages: &n, Flags: &flags}
}

// insert puts mappings where there is room for them, above the program and below an address.
func insert(m *entry.MM, below uint64, vmas ...entry.VMA) {
	at := slices.IndexFunc(m.VMAs, func(v entry.VMA) bool { return v.Start > below })
	m.VMAs = slices.Insert(m.VMAs, at, vmas...)
}

// inPagemap changes the head and the first run of the root's pagemap.
func inPagemap(change func(*entry.PagemapHead, *entry.PagemapEntry)) func(*hostile) {
	return func(h *hostile) {
		r, err := image.Open(h.dir, image.Pagemap, h.root())
		if err != nil {
			h.t.Fatal(err)
		}
		defer r.Close()
		var head entry.PagemapHead
		if err := r.Next(&head); err != nil {
			h.t.Fatal(err)
		}
		list := []entry.Message{&head}
		for {
			e := new(entry.PagemapEntry)
			if err := r.Next(e); err != nil {
				break
			}
			if len(list) == 1 {
				change(&head, e)
			}
			list = append(list, e)
		}
		if err := image.WriteAll(h.dir, image.Pagemap, h.root(), list...); err != nil {
			h.t.Fatal(err)
		}
	}
}

// file changes a file of the directory by its path; names are made of a format and the root's pid.
func file(format string, change func(path string) error) func(*hostile) {
	return func(h *hostile) {
		name := format
		if strings.Contains(format, "%") {
			name = fmt.Sprintf(format, h.root())
		}
		if err := change(filepath.Join(h.path, name)); err != nil {
			h.t.Fatal(err)
		}
	}
}

// instead puts something else in the place of a file.
func instead(put func(path string) error) func(path string) error {
	return func(path string) error { return errors.Join(os.Remove(path), put(path)) }
}

func linkTo(target string) func(string) error {
	return func(path string) error { return os.Symlink(target, path) }
}

func shorterBy(n int64) func(string) error {
	return func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, info.Size()-n)
	}
}

// field111 is a field that no schema has.
var field111 = []byte{0xf8, 0x06, 1}

// hostilities are what is done to the images of each victim.
func hostilities() []struct {
	victim string
	all    []mutation
} {
	return []struct {
		victim string
		all    []mutation
	}{
		{"tree", hostileTrees()},
		{"threads", append(hostileCores(), hostileMemory()...)},
		{"files", hostileFiles()},
		{"ghosts", hostileGhosts()},
		{"apart", hostileApart()},
		{"apart shared", hostileApartShared()},
		{"sharing", hostileSharing()},
	}
}

func hostileTrees() []mutation {
	const pstree = "pstree.img: "
	return []mutation{
		{"a process is its own parent", inTree(1, func(p *entry.PSTree, _ []entry.PSTree) { p.PPID = p.PID }), []string{pstree, "does not stand before it"}},
		{"two are each other's parents", each(image.PSTree, noID, func(h *hostile, i int, p *entry.PSTree) {
			if i == 1 || i == 2 {
				p.PPID = h.tree[3-i].PID
			}
		}), []string{pstree, "does not stand before it"}},
		{"the root is below its child", inTree(0, func(p *entry.PSTree, all []entry.PSTree) { p.PPID = all[1].PID }), []string{pstree, "has a parent"}},
		{"the root is its own parent", inTree(0, func(p *entry.PSTree, _ []entry.PSTree) { p.PPID = p.PID }), []string{pstree, "has a parent"}},
		{"a number twice", inTree(2, func(p *entry.PSTree, all []entry.PSTree) { p.PID = all[1].PID }), []string{pstree, "occurs twice"}},
		{"the number of the root again", inTree(1, func(p *entry.PSTree, all []entry.PSTree) { p.PID = all[0].PID }), []string{pstree, "occurs twice"}},
		{"a thread with the number of a process", inTree(0, func(p *entry.PSTree, all []entry.PSTree) { p.Threads = append(p.Threads, all[1].PID) }), []string{pstree, "is one of process"}},
		{"number 0", inTree(1, func(p *entry.PSTree, _ []entry.PSTree) { p.PID = 0 }), []string{pstree, "0 is no pid"}},
		{"number 1", inTree(1, func(p *entry.PSTree, _ []entry.PSTree) { p.PID, p.PGID, p.SID, p.Threads = 1, 1, 1, []uint32{1} }), []string{"core-1.img: the image is missing"}},
		{"number 2^31", inTree(1, func(p *entry.PSTree, _ []entry.PSTree) { p.PID = 1 << 31 }), []string{pstree, "2147483648 is no pid"}},
		{"a session of 2^32-1", inTree(1, func(p *entry.PSTree, _ []entry.PSTree) { p.SID = 1<<32 - 1 }), []string{pstree, "are no pids"}},
		{"a group that is init's", inTree(1, func(p *entry.PSTree, _ []entry.PSTree) { p.PGID = 1 }), []string{"process", "the number 1 is in use"}},
		{"2^20 threads", inTree(0, func(p *entry.PSTree, _ []entry.PSTree) { p.Threads = make([]uint32, 1<<20+1); p.Threads[0] = p.PID }), []string{pstree, "more than 1048576 threads"}},
		{"an unknown field", inTree(0, func(p *entry.PSTree, _ []entry.PSTree) { p.Unknown = field111 }), nil},
		{"no tree", file("pstree.img", os.Remove), []string{"pstree.img: the image is missing"}},
		{"a tree that is a fifo", file("pstree.img", instead(func(path string) error { return unix.Mkfifo(path, 0o600) })), []string{"pstree.img", "an image is a regular file"}},
		{"a tree that is a directory", file("pstree.img", instead(func(path string) error { return os.Mkdir(path, 0o700) })), []string{"pstree.img", "an image is a regular file"}},
		{"a tree without end", file("pstree.img", instead(linkTo("/dev/zero"))), []string{"pstree.img"}},
		{"a tree that is elsewhere", file("pstree.img", instead(linkTo("../../../../../../../../etc/passwd"))), []string{"pstree.img"}},

		{"an unknown version", each(image.Inventory, noID, func(_ *hostile, _ int, i *entry.Inventory) { i.ImgVersion = 1<<32 - 1 }), []string{"inventory.img", "version 4294967295 is not known"}},
		{"a plugin by its path", each(image.Inventory, noID, func(_ *hostile, _ int, i *entry.Inventory) {
			i.PluginsEntry = &entry.Plugins{Plugins: []string{"../../../../tmp/evil.so"}}
		}), []string{"inventory.img", `"../../../../tmp/evil.so"`}},
		{"a run of a name", each(image.Inventory, noID, func(_ *hostile, _ int, i *entry.Inventory) { i.DumpCRIURunID = new("/../../etc/nftables;\n") }), nil},
		{"namespaces that nobody has", each(image.Inventory, noID, func(_ *hostile, _ int, i *entry.Inventory) { i.RootIDs.MntNSID = new(uint32(1<<32 - 1)) }), []string{"ids-", "a mount namespace of its own"}},
		{"images of odd names", func(h *hostile) {
			for _, name := range []string{"core-99999999999999999999.img", "core--1.img", "pages-..img", "core-1.img\n", "..img", "-.img"} {
				file(name, func(path string) error { return os.WriteFile(path, field111, 0o600) })(h)
			}
		}, nil},
		{"no inventory", file("inventory.img", os.Remove), []string{"inventory.img"}},
	}
}

func hostileCores() []mutation {
	const core = "core-"
	return []mutation{
		{"a thread twice", inTree(0, func(p *entry.PSTree, _ []entry.PSTree) { p.Threads[2] = p.Threads[1] }), []string{"pstree.img: ", "is one of process"}},
		{"a thread that is the process", inTree(0, func(p *entry.PSTree, _ []entry.PSTree) { p.Threads[1] = p.PID }), []string{"pstree.img: ", "is one of process"}},
		{"a thread of 2^31", inTree(0, func(p *entry.PSTree, _ []entry.PSTree) { p.Threads[1] = 1 << 31 }), []string{"pstree.img: thread 2147483648"}},
		{"an unknown field", inCore(func(c *entry.Core) { c.Unknown, c.TC.Unknown, c.ThreadCore.Unknown = field111, field111, field111 }), nil},
		{"unknown fields of registers", inCore(func(c *entry.Core) { c.ThreadInfo.Unknown, c.ThreadInfo.GPRegs.Unknown = field111, field111 }), nil},
		{"a name with an end in it", inCore(func(c *entry.Core) { c.TC.Comm = "a\x00b" }), []string{core, "zero byte"}},
		{"a long name", inCore(func(c *entry.Core) { c.TC.Comm = strings.Repeat("a", 1<<20) }), []string{core, "longer than 15 bytes"}},
		{"thread-local storage of the kernel's", inCore(func(c *entry.Core) { c.ThreadInfo.GPRegs.FSBase = 1 << 63 }), []string{"task", "PTRACE_SETREGS"}},
		{"a restartable sequence of the kernel's", inCore(func(c *entry.Core) {
			c.ThreadCore.RseqEntry = &entry.Rseq{RseqABIPointer: 1<<64 - 64, RseqABISize: 32, Signature: 1}
		}), []string{"process", "rseq"}},
		{"a robust list of a size", inCore(func(c *entry.Core) { c.ThreadCore.FutexRLALen = 1<<32 - 1 }), []string{"process", "a robust list of 4294967295 bytes"}},
		{"a timer of 2^31-1 at the end of time", inCore(func(c *entry.Core) {
			c.TC.Timers.Posix = []entry.PosixTimer{{ItID: 1<<31 - 1, SiSigno: 1, Vsec: 1 << 62, Isec: 1 << 62}}
		}), nil},
		{"a timer of 2^32-1", inCore(func(c *entry.Core) { c.TC.Timers.Posix = []entry.PosixTimer{{ItID: 1<<32 - 1, SiSigno: 1}} }), []string{core, "timer 4294967295: no such number"}},
		{"limits above all", inCore(func(c *entry.Core) { c.TC.Rlimits.Rlimits[7].Cur, c.TC.Rlimits.Rlimits[7].Max = 1<<62, 1<<62 }), []string{"RLIMIT_NOFILE"}},
		{"a queue of 100,000 signals", inCore(func(c *entry.Core) {
			info := make([]byte, 128)
			info[0], info[8] = 34, 0xff
			c.TC.SignalsS.Signals = make([]entry.Siginfo, 100_000)
			for i := range c.TC.SignalsS.Signals {
				c.TC.SignalsS.Signals[i].Siginfo = info
			}
		}), []string{"signal"}},
		{"a core of another process", each(image.Core, threadID, func(_ *hostile, _ int, c *entry.Core) { c.TC = &entry.TaskCore{TaskState: 1, Comm: "x"} }), []string{core, "is of a thread"}},
		{"no core", file("core-%d.img", os.Remove), []string{core, "the image is missing"}},
	}
}

func hostileMemory() []mutation {
	const mm, pm = "mm-", "pagemap-"
	return []mutation{
		{"2^60 pages", pagemap(runOf(0x400000, 1<<60, 4)), []string{pm, "1152921504606846976 pages at 0x400000"}},
		{"2^51 pages", pagemap(runOf(0x400000, 1<<51-1024, 4)), []string{pm}},
		{"pages of the kernel", pagemap(runOf(1<<64-8192, 1, 4)), []string{pm, "no memory for the page at 0xffffffffffffe000"}},
		{"pages that nobody has", pagemap(runOf(0x1000, 1, 4)), []string{pm, "no memory for the page at 0x1000"}},
		{"pages in another order", pagemap(runOf(0x402000, 1, 4), runOf(0x401000, 1, 4)), []string{pm, "begins before the end"}},
		{"pages of a parent that is not there", inPagemap(func(_ *entry.PagemapHead, e *entry.PagemapEntry) { e.Flags = new(uint32(1)) }), []string{pm, "parent"}},
		{"pages of a parent that is the dump itself", func(h *hostile) {
			inPagemap(func(_ *entry.PagemapHead, e *entry.PagemapEntry) { e.Flags = new(uint32(1)) })(h)
			file("parent", linkTo("."))(h)
		}, []string{"parent"}},
		{"pages of a parent elsewhere", func(h *hostile) {
			inPagemap(func(_ *entry.PagemapHead, e *entry.PagemapEntry) { e.Flags = new(uint32(1)) })(h)
			file("parent", linkTo("../../../../../../../etc"))(h)
		}, []string{"parent"}},
		{"an unknown flag of pages", inPagemap(func(_ *entry.PagemapHead, e *entry.PagemapEntry) { e.Flags = new(uint32(4 | 1<<20)) }), []string{pm, "flag 0x100000"}},
		{"an unknown field of pages", inPagemap(func(_ *entry.PagemapHead, e *entry.PagemapEntry) { e.Unknown = field111 }), []string{pm, "field 111"}},
		{"another pages image", inPagemap(func(head *entry.PagemapHead, _ *entry.PagemapEntry) { head.PagesID = 1<<32 - 1 }), []string{"pages-4294967295.img"}},
		{"no pages image", file("pages-1.img", os.Remove), []string{"pages-1.img"}},
		{"a pages image that is short by a page", file("pages-1.img", shorterBy(4096)), []string{"pages-1.img"}},
		{"a pages image that is short by a byte", file("pages-1.img", shorterBy(1)), []string{"pages-1.img"}},
		{"an empty pages image", file("pages-1.img", func(path string) error { return os.Truncate(path, 0) }), []string{"pages-1.img"}},
		{"a pages image that is a fifo", file("pages-1.img", instead(func(path string) error { return unix.Mkfifo(path, 0o600) })), []string{"pages-1.img"}},
		{"a pages image that is elsewhere", file("pages-1.img", instead(linkTo("/etc/passwd"))), []string{"pages-1.img"}},

		{"a mapping of the kernel's memory", inMM(func(m *entry.MM) { m.VMAs[0].Start, m.VMAs[0].End = 1<<63, 1<<63+4096 }), []string{mm, "user space"}},
		{"a mapping that goes on into the kernel's", inMM(func(m *entry.MM) { v := &m.VMAs[len(m.VMAs)-2]; v.End = 1 << 48 }), []string{mm}},
		{"mappings that overlap", inMM(func(m *entry.MM) { m.VMAs[0].End = m.VMAs[1].End }), []string{mm, "begins before the end of the one before"}},
		{"mappings in another order", inMM(func(m *entry.MM) { m.VMAs[0], m.VMAs[1] = m.VMAs[1], m.VMAs[0] }), []string{mm, "begins before the end of the one before"}},
		{"a mapping of everything", inMM(func(m *entry.MM) {
			all := entry.VMA{Start: 0x10000, End: 0x7ffffffff000, Flags: 0x4022, Status: entry.VMARegular | entry.VMAAnonPrivate, FD: -1}
			m.VMAs = []entry.VMA{all, m.VMAs[len(m.VMAs)-1]}
		}), []string{"mm-*.img", "a row free"}},
		{"a mapping of 2^45 bytes that counts against the limit", inMM(func(m *entry.MM) {
			insert(m, 1<<46, entry.VMA{Start: 1 << 44, End: 1<<44 + 1<<45, Prot: 3, Flags: 0x22, Status: entry.VMARegular | entry.VMAAnonPrivate, FD: -1})
		}), []string{"process", "map 0x100000000000-0x300000000000"}},
		{"70,000 mappings", inMM(func(m *entry.MM) {
			var many []entry.VMA
			for i := range uint64(70_000) {
				many = append(many, entry.VMA{Start: 1<<40 + i*0x2000, End: 1<<40 + 0x1000 + i*0x2000, Prot: 3, Flags: 0x22, Status: entry.VMARegular | entry.VMAAnonPrivate, FD: -1})
			}
			insert(m, 1<<46, many...)
		}), []string{"process", "map 0x", "cannot allocate memory"}},
		{"a file mapped at the end of offsets", inMM(func(m *entry.MM) { m.VMAs[0].PgOff = 1<<64 - 4096 }), []string{mm, "offset 0xfffffffffffff000"}},
		{"arguments in the kernel", inMM(func(m *entry.MM) { m.MMArgStart, m.MMArgEnd = 1<<63, 1<<63+16 }), []string{"process", "PR_SET_MM_MAP"}},
		{"a heap that ends before it begins", inMM(func(m *entry.MM) { m.MMStartBrk, m.MMBrk = m.MMBrk, m.MMStartBrk-4096 }), []string{"process", "PR_SET_MM_MAP"}},
		{"an auxiliary vector of 10,000 words", inMM(func(m *entry.MM) { m.MMSavedAuxv = append(m.MMSavedAuxv, make([]uint64, 10_000)...) }), []string{mm, "auxiliary vector"}},
		{"a program that is no file", inMM(func(m *entry.MM) { m.ExeFileID = 1<<32 - 1 }), []string{mm, "file 4294967295"}},
		{"an unknown field", inMM(func(m *entry.MM) { m.Unknown, m.VMAs[0].Unknown = field111, field111 }), nil},
		{"no memory", file("mm-%d.img", os.Remove), []string{mm, "the image is missing"}},
	}
}

func hostileFiles() []mutation {
	const files, fdinfo = "files.img", "fdinfo-"
	flags := func(f uint32) func(*hostile) {
		return inFile("/data", func(h *hostile, e *entry.File) { e.Reg.Name, e.Reg.Flags = filepath.Join(h.victim.Dir, "made"), f })
	}
	slot := func(change func(*entry.FDInfo)) func(*hostile) {
		return each(image.FDInfo, tableID, func(h *hostile, i int, s *entry.FDInfo) {
			if i == 3 {
				change(s)
			}
		})
	}
	context := func(change func(h *hostile, f *entry.FS)) func(*hostile) {
		return each(image.FS, rootID, func(h *hostile, _ int, f *entry.FS) { change(h, f) })
	}
	return []mutation{
		{"a relative name", renamed("/data", "data"), []string{files, `"data" is not absolute`}},
		{"a name that goes up", renamed("/data", "../../../../etc/passwd"), []string{files, "is not absolute"}},
		{"a name that goes up from the root", renamed("/data", "/tmp/../../etc/passwd"), []string{files, "is not one that the kernel gives"}},
		{"a name with two slashes", renamed("/data", "//etc/passwd"), []string{files, "is not one that the kernel gives"}},
		{"no name", renamed("/data", ""), []string{files, `"" is not absolute`}},
		{"a name with an end in it", renamed("/data", "/etc/passwd\x00.txt"), []string{files, "zero byte"}},
		{"a name of 1 MiB", renamed("/data", "/"+strings.Repeat("a", 1<<20)), []string{files, "a name of 1048577 bytes"}},
		{"a name with a line of log in it", renamed("/data", "/gone\n(00.000000) Restore finished successfully"), []string{"gone"}},
		{"a name by way of the engine", renamed("/data", "/proc/self/root/etc/passwd"), []string{"/proc/self/root/etc/passwd leads through links"}},
		{"a name by way of a descriptor", renamed("/data", "/proc/self/fd/0"), []string{"/proc/self/fd/0"}},
		{"a file to be made", flags(unix.O_CREAT | unix.O_RDWR), []string{files, "would make, empty or hide a file"}},
		{"a file to be emptied", inFile("/data", func(_ *hostile, f *entry.File) { f.Reg.Flags |= unix.O_TRUNC }), []string{files, "would make, empty or hide a file"}},
		{"a file without a name to be made", flags(unix.O_TMPFILE | unix.O_RDWR), []string{files}},
		{"an offset of 2^63", inFile("/data", func(_ *hostile, f *entry.File) { f.Reg.Pos = 1 << 63 }), []string{files, "its offset is"}},
		{"a size of 2^63", inFile("/data", func(_ *hostile, f *entry.File) { f.Reg.Size = new(uint64(1 << 63)) }), []string{files, "its size is 9223372036854775808"}},
		{"an owner of 2^31", inFile("/data", func(_ *hostile, f *entry.File) { f.Reg.Fown.PID, f.Reg.Fown.PIDType = 1<<31, 1 }), []string{files, "owner"}},
		{"a signal 65 for the owner", inFile("/data", func(_ *hostile, f *entry.File) { f.Reg.Fown.Signum = 65 }), []string{files, "signal"}},
		{"a number twice", each(image.Files, noID, func(_ *hostile, i int, f *entry.File) {
			if f.Reg != nil {
				f.ID, f.Reg.ID = 1, 1
			}
		}), []string{files, "twice"}},
		{"a type that is another", inFile("/data", func(_ *hostile, f *entry.File) { f.Type = entry.FDTypePipe }), []string{files}},
		{"an unknown field", inFile("/data", func(_ *hostile, f *entry.File) { f.Unknown, f.Reg.Unknown = field111, field111 }), nil},
		{"an external file", inFile("/data", func(_ *hostile, f *entry.File) { f.Reg.Ext, f.Reg.Name = new(true), "../../etc/passwd" }), []string{files, "hand it in"}},
		{"no files", file(files, os.Remove), []string{files}},

		{"descriptor 2^31", slot(func(s *entry.FDInfo) { s.FD = 1 << 31 }), []string{fdinfo, "descriptor 2147483648"}},
		{"descriptors of nearly 2^31", each(image.FDInfo, tableID, func(h *hostile, i int, s *entry.FDInfo) { s.FD += 1<<31 - 1000 }), []string{"process", "descriptors"}},
		{"a descriptor twice", slot(func(s *entry.FDInfo) { s.FD = 0 }), []string{fdinfo, "descriptor 0"}},
		{"a descriptor of nothing", slot(func(s *entry.FDInfo) { s.ID = 1<<32 - 1 }), []string{fdinfo, "file 4294967295 is not in files.img"}},
		{"flags of a descriptor", slot(func(s *entry.FDInfo) { s.Flags = 1<<32 - 1 }), []string{fdinfo, "flags"}},
		{"no descriptors", func(h *hostile) {
			file(fmt.Sprintf("fdinfo-%d.img", tableID(h)), os.Remove)(h)
		}, []string{fdinfo, "the image is missing"}},

		{"a working directory that is a file", context(func(h *hostile, f *entry.FS) { f.CwdID = fileID(h, "/data") }), []string{files, "is a working directory, and no directory"}},
		{"a root directory that is a file", context(func(h *hostile, f *entry.FS) { f.RootID = fileID(h, "/data") }), []string{files, "is a root directory, and no directory"}},
		{"a root directory of nothing", context(func(_ *hostile, f *entry.FS) { f.RootID = 1<<32 - 1 }), []string{"fs-", "file 4294967295"}},
		{"a working directory that goes up", renamed("/dir/one", "/tmp/../.."), []string{files, "is not one that the kernel gives"}},
		{"a mask of 2^32-1", context(func(_ *hostile, f *entry.FS) { f.Umask = new(uint32(1<<32 - 1)) }), []string{"fs-", "umask"}},
	}
}

// fileID is the number of the file whose name ends like this.
func fileID(h *hostile, suffix string) uint32 {
	all, err := image.ReadAll[entry.File](h.dir, image.Files, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	for i := range all {
		if r := all[i].Reg; r != nil && strings.HasSuffix(r.Name, suffix) {
			return all[i].ID
		}
	}
	h.t.Fatalf("there is no file %s", suffix)
	return 0
}

// Images that somebody has made to do harm are refused, by the name of the image and of the thing; no process is left of them, they
// take no longer than good ones, and no file is made, changed or emptied. What is only not known is let be: the victim is as it was.
func TestRestoreOfHostileImages(t *testing.T) {
	for _, of := range hostilities() {
		t.Run(of.victim, func(t *testing.T) {
			words := strings.Fields(of.victim)
			victim, images := dumped(t, words[0], words[1:]...)
			for _, m := range of.all {
				t.Run(m.name, func(t *testing.T) {
					h := changedCopy(t, victim, images)
					m.change(h)
					before := contents(t, victim)
					began := time.Now()
					err := restoreFrom(t.Context(), New(), h.path)
					if took := time.Since(began); errors.Is(err, context.DeadlineExceeded) || took > testkit.Patience/2 {
						t.Errorf("it took %v", took)
					}
					if err == nil {
						victim.Restored()
						if m.want != nil {
							t.Errorf("it is restored, want %q", m.want)
							_ = victim.Kill()
						} else if err := victim.Verify(); err != nil {
							t.Error(err)
						}
						putBack(t, before)
					}
					for _, want := range m.want {
						if err != nil && !strings.Contains(err.Error(), want) {
							t.Errorf("%.2000v\nwant %q", err, want)
						}
					}
					if m.want == nil && err != nil {
						t.Error(err)
					}
					testkit.AwaitFreeIDs(t, images)
					if diff := cmp.Diff(before, contents(t, victim)); diff != "" {
						t.Errorf("files have changed (-before +now):\n%s", diff)
					}
				})
			}
			restoredAfterAll(t, victim, images)
		})
	}
}

// changedCopy makes a copy of images, to be changed.
func changedCopy(t *testing.T, victim *testkit.Victim, images string) *hostile {
	t.Helper()
	h := &hostile{t: t, victim: victim, path: t.TempDir()}
	if err := os.CopyFS(h.path, os.DirFS(images)); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.dir, err = image.OpenDir(h.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.dir.Close() })
	if h.tree, err = image.ReadPSTree(h.dir); err != nil {
		t.Fatal(err)
	}
	return h
}

// contents are the files below the victim's directory, but for what it says itself.
func contents(t *testing.T, victim *testkit.Victim) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(victim.Dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || path == victim.Output {
			return err
		}
		files[path] = entry.Type().String()
		if entry.Type().IsRegular() {
			text, err := os.ReadFile(path)
			files[path] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// putBack gives files the contents that they had.
func putBack(t *testing.T, before map[string]string) {
	t.Helper()
	for path, text := range before {
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
