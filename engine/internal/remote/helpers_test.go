//go:build amd64

package remote

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// procText is what /proc tells of a process that must be the same before and after a visit: its memory map, its
// descriptors, and the dispositions of its signals; and of its children the same. Masks change all the time; victims check
// their own.
func procText(t *testing.T, pid int) string {
	t.Helper()
	text := procTextOf(t, pid)
	for _, child := range children(pid) {
		text += procTextOf(t, child)
	}
	return text
}

func procTextOf(t *testing.T, pid int) string {
	t.Helper()
	var b strings.Builder
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	b.Write(maps)
	tids, err := taskIDs(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, tid := range tids {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task/%d/fd", pid, tid))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			link, _ := os.Readlink(fmt.Sprintf("/proc/%d/task/%d/fd/%s", pid, tid, e.Name()))
			fmt.Fprintf(&b, "%d fd %s %s\n", tid, e.Name(), link)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", pid, tid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			key, _, _ := strings.Cut(line, ":")
			if slices.Contains([]string{"SigIgn", "SigCgt", "TracerPid", "Threads", "Cpus_allowed"}, key) {
				fmt.Fprintf(&b, "%d %s", tid, line)
			}
		}
	}
	return b.String()
}
