//go:build amd64

package fds

import (
	"encoding/binary"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// Apply puts files at the numbers of a process's table. They are there already, at numbers of ours, which stay open for the
// other kinds of state until [CloseOurs].
func Apply(t *apply.Task) error {
	if t.Table == nil || len(t.Table.Slots) == 0 {
		return nil // a process before it has the same
	}
	if err := place(&t.Batch, t.Tree.Files, t.Table); err != nil {
		return fmt.Errorf("%s: %w", t.Where(), err)
	}
	return nil
}

// ApplyThread is Apply for a thread that has a table of its own. It has got a copy of another: all but our numbers is closed first.
func ApplyThread(th *apply.Thread) error {
	if th.OwnTable == nil {
		return nil
	}
	first, end := th.Task.Tree.Files.Range()
	th.Batch.Do("close_range", unix.SYS_CLOSE_RANGE, apply.Num(0), apply.Num(first-1), apply.Num(0))
	th.Batch.Do("close_range", unix.SYS_CLOSE_RANGE, apply.Num(end), apply.Num(uint32(math.MaxUint32)), apply.Num(0))
	if len(th.OwnTable.Slots) == 0 {
		return nil
	}
	if err := place(&th.Batch, th.Task.Tree.Files, th.OwnTable); err != nil {
		return fmt.Errorf("%s: %w", th.Where(), err)
	}
	return nil
}

func place(b *apply.Batch, files *apply.Files, table *snapshot.Table) error {
	if err := room(b, table); err != nil {
		return err
	}
	for _, s := range table.Slots {
		if files.Late[s.File] {
			continue // see OpenLate
		}
		from, err := files.Number(s.File)
		if err != nil {
			return fmt.Errorf("descriptor %d: %w", s.FD, err)
		}
		b.DoFor("dup3 to descriptor", s.FD, unix.SYS_DUP3, apply.Num(from), apply.Num(s.FD), apply.Num(closeOnExec(s)))
	}
	return nil
}

// room raises the limit of descriptors so that the highest number fits. The process's own limits come later, and may be lower: a
// limit that was lowered closes nothing.
func room(b *apply.Batch, table *snapshot.Table) error {
	highest := table.Slots[len(table.Slots)-1].FD
	const always = 256 // below this a limit would be odd
	if highest < always {
		return nil
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("getrlimit: %w", err)
	}
	top := max(uint64(highest)+1, limit.Max)
	b.Do(fmt.Sprintf("a limit of %d descriptors", top), unix.SYS_PRLIMIT64, apply.Num(0), apply.Num(unix.RLIMIT_NOFILE), apply.Words(top, top), apply.Num(0))
	return nil
}

// Finish does for a thread that has a table of its own what [CloseOurs], [OpenLate] and [Owners] do for a process.
func Finish(th *apply.Thread) error {
	if th.OwnTable == nil {
		return nil
	}
	closeOurs(&th.Batch, th.Task.Tree.Files)
	if err := openLate(&th.Batch, th.Task.Tree, th.OwnTable); err != nil {
		return err
	}
	owners(th.Task, &th.Batch, th.OwnTable)
	return nil
}

// OpenLate lets a process open what is in its directory in /proc, or in that of another process of the tree: such files are there
// when all threads are. It comes behind [CloseOurs].
func OpenLate(t *apply.Task) error {
	if t.Table == nil {
		return nil
	}
	return openLate(&t.Batch, t.Tree, t.Table)
}

func openLate(b *apply.Batch, tree *apply.Tree, table *snapshot.Table) error {
	if len(tree.Files.Late) == 0 {
		return nil
	}
	taken := make(map[int]bool) // numbers
	var order []*snapshot.File
	slots := make(map[snapshot.FileID][]snapshot.Slot)
	for _, s := range table.Slots {
		if !tree.Files.Late[s.File] {
			taken[s.FD] = true
			continue
		}
		if slots[s.File] == nil {
			order = append(order, file(tree.Snapshot, s.File))
		}
		slots[s.File] = append(slots[s.File], s)
	}
	for _, f := range order {
		o, ok := f.Object.(*snapshot.Regular)
		if !ok {
			return fmt.Errorf("file %d is a %s, and has no name", f.ID, f.Object.Kind())
		}
		lowest := 0 // the number that the kernel will give
		for taken[lowest] {
			lowest++
		}
		b.Try("open "+o.Path.Name, func(fd uint64, err error) error {
			if err == nil && fd != uint64(lowest) {
				return fmt.Errorf("it has number %d, and not %d", fd, lowest)
			}
			return err
		}, unix.SYS_OPENAT, apply.Num(unix.AT_FDCWD), apply.Text(o.Path.Name), apply.Num(f.Flags&^uint32(unix.O_ASYNC)|unix.O_NOCTTY), apply.Num(0))
		if o.Pos != 0 && o.Pos <= math.MaxInt64 && f.Flags&unix.O_PATH == 0 {
			b.Do(fmt.Sprintf("%s: seek to %d", o.Path.Name, o.Pos), unix.SYS_LSEEK, apply.Num(lowest), apply.Num(o.Pos), apply.Num(unix.SEEK_SET))
		}
		if f.Owner.Signal != 0 {
			b.Do(o.Path.Name+": F_SETSIG", unix.SYS_FCNTL, apply.Num(lowest), apply.Num(setSignal), apply.Num(f.Owner.Signal))
		}
		stays := false
		for _, s := range slots[f.ID] {
			taken[s.FD] = true
			if s.FD == lowest {
				stays = true
				flag := 0
				if s.CloseOnExec {
					flag = unix.FD_CLOEXEC
				}
				b.Do(fmt.Sprintf("descriptor %d: F_SETFD", s.FD), unix.SYS_FCNTL, apply.Num(s.FD), apply.Num(unix.F_SETFD), apply.Num(flag))
				continue
			}
			b.Do(fmt.Sprintf("descriptor %d: dup3", s.FD), unix.SYS_DUP3, apply.Num(lowest), apply.Num(s.FD), apply.Num(closeOnExec(s)))
		}
		if !stays {
			b.Do("close", unix.SYS_CLOSE, apply.Num(lowest))
		}
	}
	return nil
}

func file(tree *snapshot.Tree, id snapshot.FileID) *snapshot.File {
	for _, f := range tree.Files {
		if f.ID == id {
			return f
		}
	}
	return &snapshot.File{ID: id}
}

// closeOnExec is the flag of a descriptor as dup3 takes it.
func closeOnExec(s snapshot.Slot) int {
	if s.CloseOnExec {
		return unix.O_CLOEXEC
	}
	return 0
}

// CloseOurs closes the numbers of ours. It comes when nothing is opened, mapped or moved any more.
func CloseOurs(t *apply.Task) error {
	if t.Table != nil {
		closeOurs(&t.Batch, t.Tree.Files)
	}
	return nil
}

func closeOurs(b *apply.Batch, files *apply.Files) {
	if first, end := files.Range(); first < end {
		b.Do("close_range", unix.SYS_CLOSE_RANGE, apply.Num(first), apply.Num(end-1), apply.Num(0))
	}
}

const (
	setSignal = 10 // F_SETSIG
	setOwner  = 15 // F_SETOWN_EX
	ownTID    = 0  // F_OWNER_TID
	ownPID    = 1
	ownGroup  = 2
)

// Owners says who gets SIGIO of the files of a process. It comes when all processes, groups and threads are there, and before
// rights are given up: a file's owner is remembered with the ids of who has set it.
func Owners(t *apply.Task) error {
	if t.Table != nil {
		owners(t, &t.Batch, t.Table)
	}
	return nil
}

func owners(t *apply.Task, b *apply.Batch, table *snapshot.Table) {
	for _, f := range told(t.Tree.Snapshot, table.ID) {
		if f.Owner.PID != 0 {
			if known(t.Tree.Snapshot, f.Owner) {
				own(b, f.fd, f.Owner)
			} else {
				t.Tree.Note("%s: descriptor %d: its owner %d is no process of the tree, and gets no signals any more", t.Where(), f.fd, f.Owner.PID)
			}
		}
		if f.Flags&unix.O_ASYNC != 0 {
			b.Do(fmt.Sprintf("descriptor %d: O_ASYNC", f.fd), unix.SYS_FCNTL, apply.Num(f.fd), apply.Num(unix.F_SETFL), apply.Num(f.Flags&^uint32(unix.O_ACCMODE)))
		}
	}
}

// An owned file is one that somebody is told of, at a number.
type owned struct {
	*snapshot.File
	fd int
}

// told returns the files that somebody is to be told of, and that no table before this one has.
func told(tree *snapshot.Tree, id snapshot.ObjectID) []owned {
	files := make(map[snapshot.FileID]*snapshot.File)
	for _, f := range tree.Files {
		if f.Flags&unix.O_PATH == 0 && (f.Owner.PID != 0 || f.Flags&unix.O_ASYNC != 0) {
			files[f.ID] = f
		}
	}
	var list []owned
	for _, table := range tree.Tables {
		if len(files) == 0 {
			break
		}
		for _, s := range table.Slots {
			if f := files[s.File]; f != nil {
				delete(files, s.File)
				if table.ID == id {
					list = append(list, owned{f, s.FD})
				}
			}
		}
	}
	return list
}

// known tells whether somebody of the tree is the owner. A number that was somebody else's may be anybody's by now.
func known(tree *snapshot.Tree, o snapshot.Owner) bool {
	for _, task := range tree.Tasks {
		switch o.Type {
		case ownTID:
			for _, th := range task.Threads {
				if th.TID.Num() == o.PID && !th.Exited {
					return true
				}
			}
		case ownPID:
			if task.PID.Num() == o.PID {
				return true
			}
		case ownGroup:
			if task.Group == o.PID {
				return true
			}
		}
	}
	return false
}

// own sets a file's owner in the name of who had set it.
func own(b *apply.Batch, fd int, o snapshot.Owner) {
	foreign := o.UID != uint32(unix.Getuid()) || o.EUID != uint32(unix.Geteuid())
	if foreign {
		// The saved id stays, and with it the way back.
		b.Do("setresuid", unix.SYS_SETRESUID, apply.Num(o.UID), apply.Num(o.EUID), apply.Num(unix.Geteuid()))
	}
	owner := binary.LittleEndian.AppendUint32(nil, o.Type)
	owner = binary.LittleEndian.AppendUint32(owner, uint32(o.PID))
	b.Do(fmt.Sprintf("descriptor %d: owner %d", fd, o.PID), unix.SYS_FCNTL, apply.Num(fd), apply.Num(setOwner), apply.Bytes(owner))
	if foreign {
		b.Do("setresuid", unix.SYS_SETRESUID, apply.Num(unix.Getuid()), apply.Num(unix.Geteuid()), apply.Num(unix.Geteuid()))
	}
}
