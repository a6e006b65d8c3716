//go:build amd64

package remote

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
)

// TaskState returns the state letter of a task, 0 when it is gone. The directory of a thread that has executed a program may be there
// still, under its former number, and shows the thread with the one that it has now.
func TaskState(pid, tid int) byte {
	data, err := linux.ReadProc(fmt.Sprintf("/proc/%d/task/%d/stat", pid, tid))
	if err != nil || !bytes.HasPrefix(data, append(strconv.AppendInt(nil, int64(tid), 10), ' ')) {
		return 0
	}
	if i := bytes.LastIndexByte(data, ')'); i >= 0 && i+2 < len(data) {
		return data[i+2]
	}
	return 0
}

// InVFork tells whether a task waits, so that nothing but a signal that kills it can wake it, in a call that makes processes.
func InVFork(pid, tid int) bool {
	if TaskState(pid, tid) != 'D' {
		return false
	}
	data, err := linux.ReadProc(fmt.Sprintf("/proc/%d/task/%d/syscall", pid, tid))
	if err != nil {
		return false
	}
	number, _, _ := strings.Cut(string(data), " ")
	nr, err := strconv.Atoi(number)
	return err == nil && (nr == unix.SYS_VFORK || nr == unix.SYS_CLONE || nr == unix.SYS_CLONE3)
}

// statusNumber returns a number from a task's status file, 0 when it is not there.
func statusNumber(pid, tid int, key string) int {
	data, err := linux.ReadProc(fmt.Sprintf("/proc/%d/task/%d/status", pid, tid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(value))
			return n
		}
	}
	return 0
}
