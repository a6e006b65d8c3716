// Package proctree is the state "which processes and threads there are": numbers, parents, groups, sessions, zombies and
// stopped processes. In images it is pstree.img, and in core-PID.img the state of the process and its name.
//
// It comes first of all kinds, in both directions: it makes the tasks and threads that the others fill.
//
//   - Encode writes the tree, and a core for each thread. CRIU leaves in the thread list of a dead process what memory
//     happened to hold; here it is the pid.
//   - Decode checks that the numbers can be those of a tree: none twice, threads belong to one process, the dead have neither
//     threads nor children.
//   - Collect takes groups and sessions from stat of the processes that the engine has stopped, parents first, and a leader
//     that has exited from its state.
//   - Apply makes what package plan has put in order; see plan.Step.
package proctree

import (
	"math"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// maxComm is TASK_COMM_LEN without the zero byte at its end.
const maxComm = 15

// Encode writes the tree and makes the processes of the set.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	to.Processes = make([]*images.Process, len(from.Tasks))
	for i, t := range from.Tasks {
		p := &images.Process{}
		p.Entry = entry.PSTree{PID: uint32(t.PID.Num()), PPID: uint32(t.Parent), PGID: uint32(t.Group), SID: uint32(t.Session)}
		if len(t.PID) > 1 {
			r.Unsupported(where(t), "it is in a pid namespace of its own")
		}
		if t.State == snapshot.Dead {
			p.Entry.Threads = []uint32{p.Entry.PID}
		}
		for j, thread := range t.Threads {
			p.Entry.Threads = append(p.Entry.Threads, uint32(thread.TID.Num()))
			core := &entry.Core{Mtype: mtype(from.Arch)}
			if thread.Exited {
				if j > 0 {
					r.Unsupported(where(t), "thread %s has exited, and is not the first", thread.TID)
				}
				to.StasisOnly()
			} else {
				core.ThreadCore = &entry.ThreadCore{}
			}
			p.Cores = append(p.Cores, core)
		}
		if len(p.Cores) == 0 {
			p.Cores = []*entry.Core{{Mtype: mtype(from.Arch)}}
		}
		p.Cores[0].TC = encodeTask(t, r)
		to.Processes[i] = p
	}
}

func where(t *snapshot.Task) string { return "process " + t.PID.String() }

func encodeTask(t *snapshot.Task, r *images.Report) *entry.TaskCore {
	tc := &entry.TaskCore{Comm: t.Comm, Flags: t.KernelFlags}
	if len(t.Comm) > maxComm {
		r.Unsupported(where(t), "its name %q is longer than %d bytes", t.Comm, maxComm)
	}
	switch t.State {
	case snapshot.Running:
		tc.TaskState = entry.TaskAlive
	case snapshot.Stopped:
		tc.TaskState = entry.TaskStopped
		if t.StopSig != 0 {
			tc.StopSigno = new(uint32(t.StopSig))
		}
	case snapshot.Dead:
		tc.TaskState = entry.TaskDead
		tc.ExitCode = t.Exit
	default:
		r.Unsupported(where(t), "it is in an unknown %v", t.State)
	}
	return tc
}

func mtype(a snapshot.Arch) entry.March {
	switch a {
	case snapshot.AMD64:
		return entry.MarchX86_64
	case snapshot.ARM64:
		return entry.MarchAArch64
	}
	return entry.MarchUnknown
}

func arch(m entry.March) snapshot.Arch {
	switch m {
	case entry.MarchX86_64:
		return snapshot.AMD64
	case entry.MarchAArch64:
		return snapshot.ARM64
	}
	return 0
}

// Decode reads the tree and makes the tasks of the snapshot.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	d := decoder{r: r, seen: make(map[uint32]uint32), dead: make(map[uint32]bool)}
	// Processes first: a number that is a process is no thread, whatever the order.
	for _, p := range from.Processes {
		d.seen[p.Entry.PID] = p.Entry.PID
		d.dead[p.Entry.PID] = p.Dead()
	}
	to.Tasks = make([]*snapshot.Task, len(from.Processes))
	for i, p := range from.Processes {
		to.Tasks[i] = d.task(p)
		if m := p.Cores[0].Mtype; p.TC() != nil {
			d.machine(p, m, to)
		}
	}
}

type decoder struct {
	r    *images.Report
	seen map[uint32]uint32 // thread to process
	dead map[uint32]bool
}

var pstree = image.PSTree.File(0)

func (d *decoder) machine(p *images.Process, m entry.March, to *snapshot.Tree) {
	a := arch(m)
	switch {
	case a == 0:
		d.r.Unsupported(p.Core(), "architecture %v", m)
	case to.Arch == 0:
		to.Arch = a
	case to.Arch != a:
		d.r.Damaged(p.Core(), "architecture %v, the root has %v", a, to.Arch)
	}
}

func (d *decoder) task(p *images.Process) *snapshot.Task {
	e := &p.Entry
	d.r.Unknown(pstree, e, e.Unknown)
	t := &snapshot.Task{PID: snapshot.PID{int(e.PID)}, Parent: int(e.PPID), Group: int(e.PGID), Session: int(e.SID)}
	if e.PGID > math.MaxInt32 || e.SID > math.MaxInt32 {
		d.r.Damaged(pstree, "process %d: group %d and session %d are no pids", e.PID, e.PGID, e.SID)
	}
	if d.dead[e.PPID] {
		d.r.Damaged(pstree, "process %d: its parent %d is dead; the dead have no children", e.PID, e.PPID)
	}
	tc := p.TC()
	if tc == nil {
		if len(p.Cores[0].Unknown) > 0 || p.Cores[0].Mtype != 0 {
			d.r.Damaged(p.Core(), "it says nothing about the process")
		}
		return t
	}
	t.Comm, t.KernelFlags = tc.Comm, tc.Flags
	d.comm(p.Core(), tc.Comm)
	d.r.Unknown(p.Core(), p.Cores[0], p.Cores[0].Unknown)
	d.r.Unknown(p.Core(), tc, tc.Unknown)
	switch tc.TaskState {
	case entry.TaskAlive:
		t.State = snapshot.Running
	case entry.TaskStopped:
		t.State = snapshot.Stopped
		t.StopSig = int(min(tc.GetStopSigno(), math.MaxInt32))
		switch t.StopSig {
		case 0, 19, 20, 21, 22: // SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU
		default:
			d.r.Damaged(p.Core(), "signal %d does not stop a process", t.StopSig)
		}
	case entry.TaskDead, entry.TaskZombie:
		t.State = snapshot.Dead
		t.Exit = tc.ExitCode
		// Status in the second byte, or a signal in the low seven bits and perhaps "dumped core".
		if sig := t.Exit & 0x7f; t.Exit > 0xffff || sig != 0 && (t.Exit > 0xff || sig > snapshot.NumSignals) || t.Exit&0xff == 0x80 {
			d.r.Damaged(p.Core(), "%#x is no exit status", t.Exit)
		}
		return t
	default:
		d.r.Damaged(p.Core(), "task state %d is not known", tc.TaskState)
		return t
	}
	d.threads(p, t)
	return t
}

func (d *decoder) comm(where, name string) {
	for i := range len(name) {
		if name[i] == 0 {
			d.r.Damaged(where, "name %q has a zero byte in it", name)
			return
		}
	}
	if len(name) > maxComm {
		d.r.Damaged(where, "name %q is longer than %d bytes", name, maxComm)
	}
}

func (d *decoder) threads(p *images.Process, t *snapshot.Task) {
	e := &p.Entry
	if len(e.Threads) == 0 || e.Threads[0] != e.PID {
		d.r.Damaged(pstree, "process %d: its threads %d do not begin with itself", e.PID, head(e.Threads))
		t.State = 0
		return
	}
	for i, tid := range e.Threads {
		if i >= len(p.Cores) {
			break // the reader has said why
		}
		if i > 0 {
			if owner, taken := d.seen[tid]; taken {
				d.r.Damaged(pstree, "thread %d of process %d is one of process %d too", tid, e.PID, owner)
			}
			d.seen[tid] = e.PID
			if tid == 0 || tid > math.MaxInt32 {
				d.r.Damaged(pstree, "thread %d of process %d is no pid", tid, e.PID)
			}
		}
		thread := &snapshot.Thread{TID: snapshot.PID{int(tid)}}
		core := p.Cores[i]
		where := images.CoreName(int(tid))
		switch {
		case core.ThreadCore != nil:
			if name := core.ThreadCore.Comm; name != nil {
				d.comm(where, *name)
			}
			if i > 0 && core.TC != nil {
				d.r.Damaged(where, "it says what processes have, and is of a thread")
			}
		case i == 0 && core.ThreadInfo == nil && core.TiAArch64 == nil && len(e.Threads) > 1:
			thread.Exited = true
		case core.Mtype != 0 || i == 0: // otherwise the image was not there, which the reader has said
			d.r.Damaged(where, "it says nothing about the thread")
		}
		t.Threads = append(t.Threads, thread)
	}
}

func head[T any](s []T) []T { return s[:min(len(s), 8)] }
