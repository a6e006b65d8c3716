package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stasis.example/internal/testkit"
)

// A process that is dumped and restored again and again stays what it is: nothing of it shrinks, grows or moves a little each
// time.
func TestManyCyclesDoNotDrift(t *testing.T) {
	cycles := 100
	if testing.Short() {
		cycles = 20
	}
	for _, s := range []subject{
		victimOf("counter"), victimOf("creds", "threads"), victimOf("files"), victimOf("limits"), victimOf("posix"), victimOf("process"),
		victimOf("queues", "trap"), victimOf("scheduled"), victimOf("vmas"),
	} {
		n := cycles
		if s.name != "counter" {
			n = cycles / 10
		}
		t.Run(s.name, func(t *testing.T) {
			testkit.Need(t, append(slices.Clone(s.needs), testkit.Root)...)
			victim := s.start(t)
			before := portrait(t, victim.Pid)
			for range n {
				images := t.TempDir()
				s.run(t, stasis, images, "dump", "-t", fmt.Sprint(victim.Pid))
				if _, err := victim.Wait(); err != nil {
					t.Fatal(err)
				}
				testkit.AwaitFreeIDs(t, images)
				s.run(t, stasis, images, "restore", "-d")
				victim.Restored()
				if err := os.RemoveAll(images); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(before, portrait(t, victim.Pid)); d != "" {
				t.Errorf("after %d cycles (-before +after):\n%s", n, d)
			}
			victim.MustVerify()
			t.Logf("%d cycles", n)
		})
	}
}

// portrait is what /proc tells of a process that must stay, by file and line.
func portrait(t *testing.T, pid int) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	dir := fmt.Sprintf("/proc/%d", pid)
	read := func(name string) []string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	}
	for _, name := range []string{"maps", "limits", "auxv", "cmdline", "environ", "comm", "oom_score_adj", "coredump_filter", "personality", "timerslack_ns", "loginuid"} {
		all[name] = read(name)
	}
	// What time and load make of it, and the room in the table of descriptors, which is never taken back from who needed it.
	passing := []string{"FDSize:", "State:", "VmPeak:", "VmHWM:", "VmRSS:", "RssAnon:", "RssFile:", "RssShmem:", "VmPTE:", "VmSwap:", "SigQ:", "voluntary_ctxt_switches:",
		"nonvoluntary_ctxt_switches:"}
	fields := []int{2, 5, 6, 7, 8, 18, 19, 20, 21, 23, 25, 26, 27, 28, 31, 32, 33, 34, 38, 40, 41, 45, 46, 47, 48, 49, 50, 51, 52} // as proc(5) counts them
	tasks := entries(t, filepath.Join(dir, "task"))
	for _, tid := range tasks {
		name := "task/" + tid
		all[name+"/comm"] = read(name + "/comm")
		all[name+"/status"] = slices.DeleteFunc(read(name+"/status"), func(line string) bool {
			key, _, _ := strings.Cut(line, "\t")
			return slices.Contains(passing, key)
		})
		stat := read(name + "/stat")[0]
		open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
		values := append([]string{strings.TrimSpace(stat[:open]), stat[open : end+1]}, strings.Fields(stat[end+1:])...)
		for _, f := range fields {
			all[name+"/stat"] = append(all[name+"/stat"], fmt.Sprintf("%d: %s", f, values[f-1]))
		}
	}
	for _, fd := range entries(t, filepath.Join(dir, "fdinfo")) {
		link, err := os.Readlink(filepath.Join(dir, "fd", fd))
		if err != nil {
			t.Fatal(err)
		}
		info := read("fdinfo/" + fd)
		if pipe := strings.HasPrefix(link, "pipe:"); pipe || strings.HasPrefix(link, "/proc/") { // the kernel makes these anew, and numbers them
			if pipe {
				link = "pipe"
			}
			info = slices.DeleteFunc(info, func(line string) bool { return strings.HasPrefix(line, "ino:") })
		}
		all["fdinfo/"+fd], all["fd/"+fd] = info, []string{link}
	}
	for _, name := range []string{"exe", "cwd", "root"} {
		link, err := os.Readlink(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = []string{link}
	}
	return all
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}
