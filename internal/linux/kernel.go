package linux

import (
	"fmt"
	"sync"
	"syscall"
)

// A Kernel is the door. The zero value, and a nil pointer, is the door without a hook. It is safe for concurrent use.
type Kernel struct {
	// Step, where it is set, is called before each call that goes through the door, with the name of the call. The
	// error it returns becomes the call's, which then is not made. Set it before the first call.
	Step func(call string) error

	stepping sync.Mutex // Step is called by one at a time
	probes   probes
}

// probes remembers what was found out about this kernel.
type probes struct {
	mu    sync.Mutex
	known map[string]Answer
}

func (k *Kernel) step(call string) error {
	if k == nil || k.Step == nil {
		return nil
	}
	k.stepping.Lock()
	defer k.stepping.Unlock()
	return k.Step(call)
}

// CallError is a system call that failed.
type CallError struct {
	Call   string // as in "ptrace(PTRACE_SEIZE)"
	Target string // what it was about, as in "task 42"; may be empty
	Errno  syscall.Errno
}

func (e *CallError) Error() string {
	if e.Target == "" {
		return fmt.Sprintf("%s: %v", e.Call, e.Errno)
	}
	return fmt.Sprintf("%s: %s: %v", e.Target, e.Call, e.Errno)
}

// Unwrap returns the errno, so that errors.Is(err, unix.ESRCH) works.
func (e *CallError) Unwrap() error { return e.Errno }

// fail makes an error of an errno, nil of 0.
func fail(call string, tid int, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	e := &CallError{Call: call, Errno: errno}
	if tid != 0 {
		e.Target = fmt.Sprintf("task %d", tid)
	}
	return e
}
