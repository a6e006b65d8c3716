package linux_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

// siblingVariable makes the test program start cat as a child of its parent's, with this as its argument.
const siblingVariable = "LINUX_TEST_SIBLING"

// startSibling is what the program in between does: cat has descriptors 3 and 4 of its.
func startSibling(grace string) error {
	d, err := time.ParseDuration(grace)
	if err != nil {
		return err
	}
	program, err := os.Open("/bin/cat")
	if err != nil {
		return err
	}
	pid, err := linux.StartSibling(&linux.Sibling{Program: int(program.Fd()), Name: "cat", Files: []int{3, 4}, Grace: d})
	if err != nil {
		return err
	}
	fmt.Println(pid)
	if _, err := linux.StartSibling(&linux.Sibling{PID: pid, Program: int(program.Fd()), Name: "cat"}); !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("under a number that is in use: %v", err)
	}
	return nil
}

// The program is a child of our parent's, has the files that it was given and no others, and ends by itself.
func TestStartSibling(t *testing.T) {
	testkit.Need(t, testkit.Root)
	if grace := os.Getenv(siblingVariable); grace != "" {
		if err := startSibling(grace); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, tc := range []struct {
		grace string
		input bool
	}{{"1h", true}, {"50ms", false}} {
		in, inW, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		out, outW, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestStartSibling$")
		cmd.Env = append(os.Environ(), siblingVariable+"="+tc.grace)
		cmd.ExtraFiles = []*os.File{in, outW}
		said, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		in.Close()
		outW.Close()
		if tc.input {
			if _, err := inW.WriteString("hello"); err != nil {
				t.Fatal(err)
			}
			inW.Close()
			var buf bytes.Buffer
			if _, err := buf.ReadFrom(out); err != nil || buf.String() != "hello" {
				t.Errorf("it said %q, %v", buf.String(), err)
			}
		}
		line, _, _ := strings.Cut(string(said), "\n")
		pid, err := strconv.Atoi(line)
		if err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
			t.Fatalf("it is not our child: %v", err)
		}
		if tc.input && status != 0 || !tc.input && (!status.Signaled() || status.Signal() != unix.SIGALRM) {
			t.Errorf("it ended with %#x", int(status))
		}
		inW.Close()
		out.Close()
	}
}
