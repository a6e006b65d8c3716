package testkit

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A stock is what the test program had at one moment.
type stock struct {
	pids   map[int]bool      // processes below this one
	fds    map[string]string // number → what it refers to
	mounts map[string]bool   // mount points
}

// takeStock notes what is there. It makes Go's network poller open its descriptors first, which it would otherwise do
// at some time during the tests.
func takeStock() (*stock, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, _ = r.Close(), w.Close()

	s := &stock{pids: make(map[int]bool)}
	below, err := descendants(os.Getpid())
	if err != nil {
		return nil, err
	}
	for _, p := range below {
		s.pids[p.pid] = true
	}
	if s.fds, err = openFiles(); err != nil {
		return nil, err
	}
	if s.mounts, err = mountPoints(); err != nil {
		return nil, err
	}
	return s, nil
}

// leaks describes what is there now and was not before, having given it some time to go away.
func (s *stock) leaks(patience time.Duration) []string {
	var found []string
	poll(patience, func() bool {
		reapOrphans() // those that die a little later than who has started them
		found = slices.Concat(s.processLeaks(), s.fdLeaks(), s.mountLeaks(), goroutineLeaks())
		return len(found) == 0
	})
	return found
}

func (s *stock) processLeaks() []string {
	below, err := descendants(os.Getpid())
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for _, p := range below {
		if !s.pids[p.pid] {
			found = append(found, p.String())
		}
	}
	return found
}

func (s *stock) fdLeaks() []string {
	now, err := openFiles()
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for fd, target := range now {
		if s.fds[fd] != target {
			found = append(found, fmt.Sprintf("descriptor %s: %s", fd, target))
		}
	}
	slices.Sort(found)
	return found
}

func (s *stock) mountLeaks() []string {
	now, err := mountPoints()
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for point := range now {
		if !s.mounts[point] {
			found = append(found, "mount on "+point)
		}
	}
	slices.Sort(found)
	return found
}

// goroutineLeaks returns the stacks of the goroutines that tests have started: all but the caller and those that the
// runtime and the testing package run for themselves.
func goroutineLeaks() []string {
	buf := make([]byte, 1<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	var found []string
	for _, stack := range stacks[1:] { // the first is the caller's
		if !isHousekeeping(stack) {
			found = append(found, stack)
		}
	}
	return found
}

func isHousekeeping(stack string) bool {
	for _, sign := range []string{
		"os/signal.signal_recv",     // the signal package's, once Notify was called
		"created by internal/fuzz.", // the fuzzer's own
	} {
		if strings.Contains(stack, sign) {
			return true
		}
	}
	return false
}

// openFiles returns what this process's descriptors refer to. The one used for looking is closed by then, and its entry
// left out.
func openFiles() (map[string]string, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	files := make(map[string]string, len(entries))
	for _, entry := range entries {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files[entry.Name()] = target
	}
	return files, nil
}

func mountPoints() (map[string]bool, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	points := make(map[string]bool)
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			points[fields[4]] = true
		}
	}
	return points, nil
}

type descendant struct {
	pid int
	stat
}

func (d descendant) String() string {
	states := taskStates(d.pid)
	what := fmt.Sprintf("process %d (%s), threads in states %q: %s", d.pid, d.comm, states, d.commandLine())
	switch {
	case d.state == 'Z':
		return fmt.Sprintf("zombie %d (%s), which nobody waited for", d.pid, d.comm)
	case strings.ContainsAny(states, "tT"):
		return "STOPPED " + what
	}
	return what
}

func (d descendant) commandLine() string {
	data, _ := os.ReadFile("/proc/" + strconv.Itoa(d.pid) + "/cmdline")
	return strings.TrimSpace(strings.ReplaceAll(string(data), "\x00", " "))
}

// descendants returns the processes below a process, parents before children.
func descendants(pid int) ([]descendant, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]descendant)
	for _, entry := range entries {
		number, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		st, err := readStat("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it is gone
		}
		children[st.ppid] = append(children[st.ppid], descendant{number, st})
	}
	below := children[pid]
	for i := 0; i < len(below); i++ {
		below = append(below, children[below[i].pid]...)
	}
	return below, nil
}

// KillDescendants kills whatever is running below this process and says what it was, zombies left aside: for a program
// that has run test programs, and is their subreaper.
func KillDescendants() ([]string, error) {
	below, err := descendants(os.Getpid())
	if err != nil {
		return nil, err
	}
	var running []string
	for _, p := range below {
		if p.state != 'Z' {
			running = append(running, p.String())
		}
	}
	killDescendants(settle)
	return running, nil
}

// killDescendants kills what the tests have left running, so that it does not outlive the test program, and waits for it
// as long as patience allows. More may come meanwhile: what becomes ours when its parent dies.
func killDescendants(patience time.Duration) {
	poll(patience, func() bool {
		below, err := descendants(os.Getpid())
		if err != nil {
			return true
		}
		for _, p := range below {
			if p.state != 'Z' {
				// By number, as nothing else is at hand: it is below us, so only it or its parent could have given the
				// number away since we looked.
				_ = unix.Kill(p.pid, unix.SIGKILL)
			}
			_ = retry(func() error {
				_, err := unix.Wait4(p.pid, nil, unix.WALL|unix.WNOHANG, nil)
				return err
			})
		}
		return len(below) == 0
	})
}
