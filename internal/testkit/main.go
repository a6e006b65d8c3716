package testkit

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The main goroutine stays on the main thread, and nothing else runs there: see reapOrphans. Only during initialisation
// can a program ask for that.
func init() { runtime.LockOSThread() }

// settle is how long the end of the tests' last doings is waited for: a goroutine that is about to return, a child of a
// child that is about to exit.
const settle = 3 * time.Second

// Main runs the tests of a package and ends the program; a TestMain calls it, from the goroutine it was called on, and
// does nothing after. It fails the run when the tests have left a process, a stopped task, a descriptor, a mount or a
// goroutine behind, and says which; processes left behind are killed.
func Main(m *testing.M) {
	os.Exit(run(m, settle))
}

func run(m *testing.M, settle time.Duration) int {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintf(os.Stderr, "testkit: prctl(PR_SET_CHILD_SUBREAPER): %v\n", err)
		return 1
	}
	if err := CloseInheritedOnExec(); err != nil {
		fmt.Fprintf(os.Stderr, "testkit: %v\n", err)
		return 1
	}
	before, err := takeStock()
	if err != nil {
		fmt.Fprintf(os.Stderr, "testkit: before the tests: %v\n", err)
		return 1
	}
	code := runTests(m)
	leaks := before.leaks(settle)
	for _, leak := range leaks {
		fmt.Fprintf(os.Stderr, "testkit: leaked %s\n", leak)
	}
	killDescendants(settle)
	if code == 0 && len(leaks) > 0 {
		return 1
	}
	return code
}

// CloseInheritedOnExec keeps the descriptors that this program was started with, beyond the standard ones, from the
// programs that it starts: a terminal or log file of whoever runs the tests would be in the way of every dump.
func CloseInheritedOnExec() error {
	files, err := openFiles()
	if err != nil {
		return err
	}
	for number := range files {
		if fd, err := strconv.Atoi(number); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// runTests runs the tests on a goroutine of their own and buries orphans meanwhile.
func runTests(m *testing.M) int {
	orphans := make(chan os.Signal, 1)
	signal.Notify(orphans, unix.SIGCHLD)
	defer signal.Stop(orphans)
	done := make(chan int, 1)
	go func() {
		code := 1 // should Run end the goroutine
		defer func() { done <- code }()
		code = m.Run()
	}()
	// The list that orphans are found in may leave some out while others end (proc_pid_task_children(5)), and no signal tells of
	// those again.
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		select {
		case <-orphans:
			reapOrphans()
		case <-again.C:
			reapOrphans()
		case code := <-done:
			reapOrphans()
			return code
		}
	}
}

// reapOrphans waits for the dead among the processes that became ours when their parents died, as init does for
// others': a dead process that nobody waits for keeps its pid, and nothing can be restored under it.
//
// What tests have started themselves is theirs to wait for, and a leak if they do not. The two can be told apart: the
// kernel knows for each process which thread is its parent. A child's is the thread that started it, which is not the
// main thread, as no test runs there; an orphan's new one is the first living thread of the subreaper, which is the main
// thread (kernel/exit.c: find_new_reaper). /proc/PID/task/TID/children lists them by thread.
//
// Only those that are dead are waited for, each by its pid: a wait for any child would take the stops of a tracee from
// the thread that traces it, which may be one of this process.
func reapOrphans() {
	main := strconv.Itoa(os.Getpid())
	children, err := os.ReadFile("/proc/" + main + "/task/" + main + "/children")
	if err != nil {
		return
	}
	for child := range strings.FieldsSeq(string(children)) {
		pid, err := strconv.Atoi(child)
		if err != nil {
			continue
		}
		if st, err := readStat("/proc/" + child + "/stat"); err != nil || st.state != 'Z' {
			continue
		}
		_ = retry(func() error {
			_, err := unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
			return err
		})
	}
}
