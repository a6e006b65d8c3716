package testkit

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Main runs the tests of a package and ends the program; a TestMain calls it and does nothing after. It fails the run
// when the tests have left a process, a stopped task, a descriptor, a mount or a goroutine behind, and says which;
// processes left behind are killed.
func Main(m *testing.M) {
	os.Exit(run(m, settle))
}

// settle is how long the end of the tests' last doings is waited for: a goroutine that is about to return, a child of a
// child that is about to exit.
const settle = 3 * time.Second

func run(m *testing.M, settle time.Duration) int {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintf(os.Stderr, "testkit: prctl(PR_SET_CHILD_SUBREAPER): %v\n", err)
		return 1
	}
	before, err := takeStock()
	if err != nil {
		fmt.Fprintf(os.Stderr, "testkit: before the tests: %v\n", err)
		return 1
	}
	code := m.Run()
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
