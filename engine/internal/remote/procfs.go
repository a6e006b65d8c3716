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

// A Mapping is a line of /proc/PID/maps.
type Mapping struct {
	Start, End uint64
	Perms      string // as in "rwxp"
	Offset     uint64
	Inode      uint64
	Path       string
}

func (m Mapping) size() uint64 { return m.End - m.Start }

func readMappings(pid int) ([]Mapping, error) {
	data, err := linux.ReadProc(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	var maps []Mapping
	for line := range strings.Lines(string(data)) {
		m, err := parseMapping(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("/proc/%d/maps: %w", pid, err)
		}
		maps = append(maps, m)
	}
	return maps, nil
}

func parseMapping(line string) (Mapping, error) {
	bad := fmt.Errorf("not a mapping: %q", line)
	f := strings.SplitN(line, " ", 6)
	if len(f) < 5 {
		return Mapping{}, bad
	}
	start, end, ok := strings.Cut(f[0], "-")
	if !ok {
		return Mapping{}, bad
	}
	m := Mapping{Perms: f[1]}
	var errs [4]error
	m.Start, errs[0] = strconv.ParseUint(start, 16, 64)
	m.End, errs[1] = strconv.ParseUint(end, 16, 64)
	m.Offset, errs[2] = strconv.ParseUint(f[2], 16, 64)
	m.Inode, errs[3] = strconv.ParseUint(f[4], 10, 64)
	for _, err := range errs {
		if err != nil {
			return Mapping{}, bad
		}
	}
	if len(f) == 6 {
		m.Path = strings.TrimLeft(f[5], " ")
	}
	return m, nil
}

// TaskState returns the state letter of a task, 0 when it is gone.
func TaskState(pid, tid int) byte {
	data, err := linux.ReadProc(fmt.Sprintf("/proc/%d/task/%d/stat", pid, tid))
	if err != nil {
		return 0
	}
	if i := bytes.LastIndexByte(data, ')'); i >= 0 && i+2 < len(data) {
		return data[i+2]
	}
	return 0
}

// inVFork tells whether a task waits, so that nothing but a signal that kills it can wake it, in a call that makes processes.
func inVFork(pid, tid int) bool {
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
