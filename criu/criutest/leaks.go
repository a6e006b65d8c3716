package criutest

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// NoLeaks checks, when the test and its other clean-ups are done, that this process has no descriptor, no child process
// and no goroutine more than now. A test that calls it may not run in parallel to others.
func NoLeaks(t testing.TB) {
	t.Helper()
	// Go's network poller keeps descriptors of its own from its first use on.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	fds, children, goroutines := openFiles(), childProcesses(), runtime.NumGoroutine()
	t.Cleanup(func() {
		// A program with the race detector in it takes a second to exit by itself, on a busy machine more.
		deadline := time.Now().Add(20 * time.Second)
		for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
			leaks := append(surplus("descriptor", fds, openFiles()), surplus("child", children, childProcesses())...)
			if n := runtime.NumGoroutine(); n > goroutines {
				leaks = append(leaks, "goroutines:\n"+stacks())
			}
			if len(leaks) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("left behind: %s", strings.Join(leaks, "; "))
				return
			}
			time.Sleep(pause) // something may be about to end
		}
	})
}

func surplus(kind string, before, after map[string]string) (list []string) {
	for key, what := range after {
		if old, ok := before[key]; !ok || old != what {
			list = append(list, kind+" "+key+" ("+what+")")
		}
	}
	return list
}

func openFiles() map[string]string {
	files := make(map[string]string)
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil { // else it was the directory's own
			files[e.Name()] = target
		}
	}
	return files
}

// childProcesses lists children, zombies included, by pid.
func childProcesses() map[string]string {
	children := make(map[string]string)
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		list, err := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		if err != nil {
			continue
		}
		for pid := range strings.FieldsSeq(string(list)) {
			comm, _ := os.ReadFile("/proc/" + pid + "/comm")
			children[pid] = strings.TrimSpace(string(comm))
		}
	}
	return children
}

func stacks() string {
	buf := make([]byte, 1<<16)
	return string(buf[:runtime.Stack(buf, true)])
}
