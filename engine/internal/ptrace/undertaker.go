package ptrace

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
)

// An undertaker waits, beside the tracer's own thread, for traced threads that have ended.
//
// A thread that executes a program kills the others of its process, and goes on when all have been waited for (fs/exec.c: de_thread).
// For those that are traced their tracer has to wait, and it may be unable to: PTRACE_SEIZE of one thread more waits, and no signal
// ends that, until the program is executed (kernel/ptrace.c: ptrace_attach takes cred_guard_mutex). Any thread of the tracer's
// process can.
type undertaker struct {
	mu     sync.Mutex
	buried map[int]bool // threads that were waited for, and whose end the tracer has not seen
}

const (
	buryAfter = 5 * time.Millisecond // most processes have stopped by then
	buryEvery = time.Millisecond
)

// BuryMeanwhile waits for threads of a process as they end, but for the first, until it is told to stop. To the tracer they are gone.
func (t *Tracer) BuryMeanwhile(pid int) (stop func()) {
	over, ended := make(chan struct{}), make(chan struct{})
	timer := time.AfterFunc(buryAfter, func() {
		defer close(ended)
		for {
			t.bury(pid)
			select {
			case <-over:
				return
			case <-time.After(buryEvery):
			}
		}
	})
	return func() {
		close(over)
		if !timer.Stop() {
			<-ended
		}
	}
}

func (t *Tracer) bury(pid int) {
	names, _ := linux.ReadProcDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, name := range names {
		tid, err := strconv.Atoi(name)
		// The first waits for the others. Who has ended has nothing to report but that.
		if err != nil || tid == pid || stateIn(fmt.Sprintf("/proc/%d/task/%d/stat", pid, tid)) != 'Z' {
			continue
		}
		t.dead.mu.Lock()
		if n, _, err := t.kernel.WaitTracee(tid); err == nil && n == tid {
			if t.dead.buried == nil {
				t.dead.buried = make(map[int]bool)
			}
			t.dead.buried[tid] = true
		}
		t.dead.mu.Unlock()
	}
}

// wasBuried tells, once, whether a thread was waited for.
func (u *undertaker) wasBuried(tid int) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	was := u.buried[tid]
	delete(u.buried, tid)
	return was
}

// Lost takes note that the thread has ended, or has another number, which the kernel will not tell any more.
func (th *Thread) Lost() {
	if !th.gone {
		th.tracer.dead.wasBuried(th.TID)
		th.gone = true
		th.tracer.held--
	}
}

// StopDue tells of a thread that was stopped whether there is a stop to be waited for: its number is that of another thread then,
// which has executed a program. It waits until that one has stopped.
func (th *Thread) StopDue() (bool, error) {
	for deadline, try := time.Now().Add(patience), 0; ; try++ {
		stands := stateIn(fmt.Sprintf("/proc/%d/stat", th.TID)) == 't'
		due, err := th.tracer.kernel.StopDue(th.TID)
		if err != nil || due || stands {
			return due, err
		}
		if th.isDead() {
			return false, fmt.Errorf("task %d: %w", th.TID, ErrGone)
		}
		if err := th.tracer.pause(try, deadline); err != nil {
			return false, fmt.Errorf("task %d: %w", th.TID, err)
		}
	}
}

// lost reports whether an error of wait4 means that a thread has been waited for.
func (th *Thread) lost(err error) bool {
	return errors.Is(err, unix.ECHILD) && th.tracer.dead.wasBuried(th.TID)
}
