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
// descriptors, and the dispositions of its signals. Masks change all the time; victims check their own.
func procText(t *testing.T, pid int) string {
	t.Helper()
	var b strings.Builder
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	b.Write(maps)
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
		fmt.Fprintf(&b, "fd %s %s\n", e.Name(), link)
	}
	tids, err := taskIDs(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, tid := range tids {
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
