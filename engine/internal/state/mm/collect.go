//go:build amd64

package mm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/pages"
	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/proc"
)

// Collect reads the mappings. It looks at files of /proc and at nothing that other kinds collect, so it can do so while they do.
func Collect(t *collect.Tree) error {
	var vmas []snapshot.VMA // room for those of each
	for p := range t.Alive() {
		if !p.Space {
			continue
		}
		s := &snapshot.Space{
			ID: p.Task.Space, StartCode: p.Stat.StartCode, EndCode: p.Stat.EndCode, StartData: p.Stat.StartData, EndData: p.Stat.EndData,
			StartStack: p.Stat.StartStack, StartBrk: p.Stat.StartBrk, ArgStart: p.Stat.ArgStart, ArgEnd: p.Stat.ArgEnd,
			EnvStart: p.Stat.EnvStart, EnvEnd: p.Stat.EnvEnd,
		}
		t.Snapshot.Spaces = append(t.Snapshot.Spaces, s)
		t.Snapshot.PageSize = pages.Size
		var err error
		if s.Auxv, err = p.Dir.Auxv(8); err != nil {
			return err
		}
		c := collector{tree: t, p: p, space: s, vmas: vmas[:0]}
		if err := p.Dir.Mappings(c.mapping); err != nil {
			return err
		}
		vmas, s.VMAs = c.vmas, slices.Clone(c.vmas)
	}
	return nil
}

// Complete finds the files of the mappings, and asks for what only the process can tell.
func Complete(t *collect.Tree) error {
	spaces := t.Snapshot.Spaces
	for p := range t.Alive() {
		if !p.Space {
			continue
		}
		s := spaces[0] // they are in the same order
		spaces = spaces[1:]
		link, err := p.Dir.Link("exe")
		if err != nil {
			return err
		}
		s.Exe = t.Named(p.Holder(), "exe", link, unix.O_RDONLY).ID
		links := p.MapLinks
		p.MapLinks = nil
		for i := range s.VMAs {
			if v := &s.VMAs[i]; v.Kind.OfFile() {
				v.File = t.Named(p.Holder(), mapFile(v.Range), links[0], v.OpenFlags).ID
				links = links[1:]
			}
		}
		p.Ask(func(b *collect.Batch) { inside(b, p, s) })
	}
	return nil
}

// mapFile is the name of the link in a process's directory of /proc that leads to the file of a mapping.
func mapFile(r snapshot.Range) string { return fmt.Sprintf("map_files/%x-%x", r.Start, r.End) }

// inside asks for the end of the heap, and for what prctl tells.
func inside(b *collect.Batch, p *collect.Process, s *snapshot.Space) {
	brk := b.Call(unix.SYS_BRK, 0)
	dumpable := b.Call(unix.SYS_PRCTL, unix.PR_GET_DUMPABLE)
	thp := b.Call(unix.SYS_PRCTL, unix.PR_GET_THP_DISABLE)
	merge := b.Call(unix.SYS_PRCTL, unix.PR_GET_MEMORY_MERGE)
	b.Then(func(r *collect.Results) error {
		var err error
		if s.Brk, err = r.Value(brk); err != nil {
			return fmt.Errorf("brk: %w", err)
		}
		d, err := r.Value(dumpable)
		if err != nil {
			return fmt.Errorf("prctl(PR_GET_DUMPABLE): %w", err)
		}
		off, err := r.Value(thp)
		if err != nil {
			return fmt.Errorf("prctl(PR_GET_THP_DISABLE): %w", err)
		}
		s.Dumpable, s.THPDisabled = int(d), off != 0
		if on, err := r.Value(merge); err == nil { // since Linux 6.4
			s.MergeAny = on != 0
		}
		return lockFuture(p, s)
	})
}

// lockFuture finds out whether mappings to come are locked, which the kernel only shows by one that does come. Who has locked
// nothing so far is not asked.
func lockFuture(p *collect.Process, s *snapshot.Space) error {
	if !slices.ContainsFunc(s.VMAs, func(v snapshot.VMA) bool { return v.Flags&unix.MAP_LOCKED != 0 }) {
		return nil
	}
	addr, _ := p.Remote.Data()
	try := []remote.Call{remote.NewCall(unix.SYS_MMAP, 0, pages.Size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, noFile, 0)}
	if err := p.Remote.Run(try); err != nil {
		return err
	}
	if try[0].Err() != nil {
		s.LockFuture = snapshot.LockAll // the limit of what it may lock is reached
		return nil
	}
	page := try[0].Ret
	ask := []remote.Call{
		remote.NewCall(unix.SYS_MINCORE, page, pages.Size, addr),
		// Locked memory is none that this advice can be given for.
		remote.NewCall(unix.SYS_MADVISE, page, pages.Size, unix.MADV_COLD),
		remote.NewCall(unix.SYS_MUNMAP, page, pages.Size),
	}
	if err := p.Remote.Run(ask); err != nil {
		return err
	}
	var there [1]byte
	if err := p.Remote.Read(addr, there[:]); err != nil {
		return err
	}
	switch {
	case !errors.Is(ask[1].Err(), unix.EINVAL):
	case there[0]&1 != 0:
		s.LockFuture = snapshot.LockAll
	default:
		s.LockFuture = snapshot.LockOnFault
	}
	return ask[2].Err()
}

type collector struct {
	tree  *collect.Tree
	p     *collect.Process
	space *snapshot.Space
	vmas  []snapshot.VMA
	vvar  bool // the mapping before was [vvar]
}

// mapping takes one mapping.
func (c *collector) mapping(m *proc.Smap) error {
	for _, left := range c.p.Remote.Leftovers {
		if m.Start >= left.Start && m.End <= left.End {
			return nil
		}
	}
	s := c.space
	if m.Path == "[vvar_vclock]" && c.vvar && len(c.vmas) > 0 {
		c.vmas[len(c.vmas)-1].End = m.End
		return nil
	}
	v := snapshot.VMA{Range: snapshot.Range{Start: m.Start, End: m.End}, Prot: uint32(m.Perm) & protAll}
	c.vvar = m.Path == "[vvar]"
	if why := c.kind(m, &v); why != "" {
		c.tree.Report.Unsupported(c.p.Where(), "mapping %#x-%#x (%s): %s", m.Start, m.End, m.Path, why)
		return nil
	}
	flags(m, &v)
	if v.Kind.OfFile() {
		if m.Perm&proc.PermShared != 0 && m.Flags.Has(proc.VMMayWrite) {
			v.OpenFlags = unix.O_RDWR
		}
		v.Offset = m.Offset
		c.p.MapLinks = append(c.p.MapLinks, c.link(m, v.Range))
	}
	c.vmas = append(c.vmas, v)
	if m.Flags.Has(proc.VMMaybeGuard) {
		guards, err := pages.Guards(c.tree.Kernel, c.p.Live(), v.Range)
		if err != nil {
			return err
		}
		s.Guards = append(s.Guards, guards...)
	}
	return nil
}

// link returns what the link to the file of a mapping says.
func (c *collector) link(m *proc.Smap, r snapshot.Range) string {
	link, err := c.p.Dir.Link(mapFile(r))
	if err != nil { // it takes CAP_CHECKPOINT_RESTORE in the first user namespace
		return m.Path
	}
	if n := len(c.p.MapLinks); n > 0 && c.p.MapLinks[n-1] == link {
		return c.p.MapLinks[n-1] // there once
	}
	return link
}

// kind finds out what a mapping is of, or says why it cannot be saved.
func (c *collector) kind(m *proc.Smap, v *snapshot.VMA) string {
	shared := m.Perm&proc.PermShared != 0
	switch {
	case m.Path == "[vsyscall]":
		v.Kind = snapshot.VSyscall
		return ""
	case m.Path == "[vdso]":
		v.Kind = snapshot.VDSO
		return ""
	case m.Path == "[vvar]":
		v.Kind = snapshot.VVar
		return ""
	}
	for _, f := range []struct {
		flag proc.VMFlags
		why  string
	}{
		{proc.VMHugeTLB, "huge pages (MAP_HUGETLB) cannot be saved yet"}, {proc.VMShadowStack, "shadow stacks cannot be saved yet"},
		{proc.VMUffdMissing, "it is watched by a userfaultfd"}, {proc.VMUffdWP, "it is watched by a userfaultfd"},
		{proc.VMUffdMinor, "it is watched by a userfaultfd"}, {proc.VMSealed, "it is sealed (mseal)"}, {proc.VMDroppable, "it is MAP_DROPPABLE"},
		{proc.VMSync, "it is MAP_SYNC"}, {proc.VMIO, "it is memory of a device"}, {proc.VMPFNMap, "it is memory of a device"},
	} {
		if m.Flags.Has(f.flag) {
			return f.why
		}
	}
	switch {
	case m.ProtectionKey != 0:
		return "it has a protection key"
	case len(m.UnknownFlags) > 0:
		return fmt.Sprintf("it has flags that are not known: %v", m.UnknownFlags)
	}
	return c.ordinary(m, v, shared)
}

func (c *collector) ordinary(m *proc.Smap, v *snapshot.VMA, shared bool) string {
	name, named := strings.CutPrefix(m.Path, "[anon:")
	switch {
	case m.Inode == 0 && !shared && named:
		v.Kind, v.Name = snapshot.AnonPrivate, strings.TrimSuffix(name, "]")
	case m.Inode == 0 && !shared && (m.Path == "" || m.Path == "[stack]" || m.Path == "[heap]" || strings.HasPrefix(m.Path, "[stack:")):
		v.Kind, v.Heap = snapshot.AnonPrivate, m.Path == "[heap]"
	case m.Inode == 0:
		return "a mapping of this kind cannot be saved yet"
	case strings.HasPrefix(m.Path, "/memfd:"):
		return "memfds cannot be saved yet"
	case strings.HasPrefix(m.Path, "/SYSV"):
		return "System V shared memory cannot be saved yet"
	case strings.HasPrefix(m.Path, "/[aio]"):
		return "asynchronous I/O (io_setup) cannot be saved yet"
	case strings.HasPrefix(m.Path, "/dev/zero") && shared, strings.HasPrefix(m.Path, "[anon_shmem:"):
		return "shared memory cannot be saved yet"
	case !strings.HasPrefix(m.Path, "/"):
		return "a mapping of this kind cannot be saved yet"
	case shared:
		v.Kind = snapshot.FileShared
	default:
		v.Kind = snapshot.FilePrivate
	}
	return ""
}

// flags turns the flags of smaps into those of mmap and madvise.
func flags(m *proc.Smap, v *snapshot.VMA) {
	v.Flags = mapPrivate
	if v.Kind == snapshot.FileShared {
		v.Flags = mapShared
	}
	if !v.Kind.OfFile() {
		v.Flags |= mapAnonymous
	}
	if v.Kind.OfKernel() {
		if v.Kind == snapshot.VVar {
			v.Advice = 1 << unix.MADV_DONTDUMP // as CRIU has it
		}
		return
	}
	for _, f := range []struct {
		flag proc.VMFlags
		bit  uint32
	}{{proc.VMGrowsDown, unix.MAP_GROWSDOWN}, {proc.VMLocked, unix.MAP_LOCKED}, {proc.VMNoReserve, unix.MAP_NORESERVE}} {
		if m.Flags.Has(f.flag) {
			v.Flags |= f.bit
		}
	}
	for _, f := range []struct {
		flag   proc.VMFlags
		advice uint
	}{
		{proc.VMSeqRead, unix.MADV_SEQUENTIAL}, {proc.VMRandRead, unix.MADV_RANDOM}, {proc.VMDontCopy, unix.MADV_DONTFORK},
		{proc.VMDontDump, unix.MADV_DONTDUMP}, {proc.VMMergeable, unix.MADV_MERGEABLE}, {proc.VMHugePage, unix.MADV_HUGEPAGE},
		{proc.VMNoHugePage, unix.MADV_NOHUGEPAGE}, {proc.VMWipeOnFork, unix.MADV_WIPEONFORK},
	} {
		if m.Flags.Has(f.flag) {
			v.Advice |= 1 << f.advice
		}
	}
	v.Accounted = m.Flags.Has(proc.VMAccount)
	v.LockOnFault = m.Flags.Has(proc.VMLockOnFault)
}
