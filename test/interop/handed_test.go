package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"stasis.example/internal/testkit"
)

// A handed subject has a file that whoever restores it hands in.
type handed struct {
	name string
	// start starts a victim that wants to read "new text", and returns how the file is called for the dump (empty for not at
	// all) and for the restore.
	start func(t *testing.T) (v *testkit.Victim, external, key string)
	// dumped does something when the victim is dumped.
	dumped func(t *testing.T, v *testkit.Victim)
}

const newText = "new text"

// Files that are handed in: the external ones, which the dump does not look into, and others in whose place they are put.
func TestFilesHandedIn(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("handed"))
	for _, h := range []handed{
		{name: "external file", start: func(t *testing.T) (*testkit.Victim, string, string) {
			v := startReader(t)
			key := externalKey(t, v.Pid, filepath.Join(v.Dir, "old"))
			return v, key, key
		}},
		{name: "file by its name", start: func(t *testing.T) (*testkit.Victim, string, string) {
			v := startReader(t)
			return v, "", strings.TrimPrefix(filepath.Join(v.Dir, "old"), "/")
		}, dumped: func(t *testing.T, v *testkit.Victim) {
			if err := os.Remove(filepath.Join(v.Dir, "old")); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "end of a pipe", start: func(t *testing.T) (*testkit.Victim, string, string) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			t.Cleanup(func() { _ = w.Close() })
			v := testkit.VictimSpec{Name: "handed", Args: []string{"-", newText}, Stdin: r}.Start(t)
			link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", v.Pid))
			if err != nil {
				t.Fatal(err)
			}
			return v, "", link
		}},
	} {
		t.Run(h.name, func(t *testing.T) {
			for _, w := range ways() {
				t.Run(w.String(), func(t *testing.T) {
					t.Parallel()
					h.survives(t, w)
				})
			}
		})
	}
}

func startReader(t *testing.T) *testkit.Victim {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "old"), []byte("old text"), 0o644); err != nil {
		t.Fatal(err)
	}
	return testkit.VictimSpec{Name: "handed", Args: []string{filepath.Join(dir, "old"), newText}, Dir: dir}.Start(t)
}

// externalKey is what --external calls the file that a process has open under a name.
func externalKey(t *testing.T, pid int, name string) string {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err != nil || link != name {
			continue
		}
		info, err := os.ReadFile(strings.Replace(fd, "/fd/", "/fdinfo/", 1))
		if err != nil {
			t.Fatal(err)
		}
		mount := regexp.MustCompile(`(?m)^mnt_id:\t(\d+)$`).FindSubmatch(info)
		var st syscall.Stat_t
		if err := syscall.Stat(fd, &st); err != nil || mount == nil {
			t.Fatalf("%s: %s, %v", fd, info, err)
		}
		var id int
		if _, err := fmt.Sscan(string(mount[1]), &id); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("file[%x:%x]", id, st.Ino)
	}
	t.Fatalf("process %d does not have %s", pid, name)
	return ""
}

func (h handed) survives(t *testing.T, w way) {
	victim, external, key := h.start(t)
	images := t.TempDir()
	args := []string{"dump", "-t", fmt.Sprint(victim.Pid), "-D", images, "-o", "dump.log", "-v4"}
	if external != "" {
		args = append(args, "--external", external)
	}
	if output, err := command(t, w.dump, nil, args...).CombinedOutput(); err != nil {
		t.Fatalf("dump: %v\n%s\n%s", err, output, complaints(filepath.Join(images, "dump.log")))
	}
	if _, err := victim.Wait(); err != nil {
		t.Fatal(err)
	}
	testkit.AwaitFreeIDs(t, images)
	if h.dumped != nil {
		h.dumped(t, victim)
	}
	given, err := os.CreateTemp(t.TempDir(), "new")
	if err != nil {
		t.Fatal(err)
	}
	defer given.Close()
	if _, err := given.WriteAt([]byte(newText), 0); err != nil {
		t.Fatal(err)
	}
	// CRIU compares the mode and the size even of an external file.
	if err := given.Chmod(0o644); err != nil {
		t.Fatal(err)
	}
	// Without the file nothing is restored.
	restore := []string{"restore", "-d", "-D", images, "-o", "restore.log", "-v4"}
	if external != "" {
		if output, err := command(t, w.restore, nil, restore...).CombinedOutput(); err == nil {
			t.Fatalf("restored without the external file:\n%s", output)
		}
		testkit.AwaitFreeIDs(t, images)
	}
	cmd := command(t, w.restore, nil, append(restore, "--inherit-fd", "fd[3]:"+key)...)
	cmd.ExtraFiles = []*os.File{given}
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("restore: %v\n%s\n%s", err, output, complaints(filepath.Join(images, "restore.log")))
	}
	victim.Restored()
	victim.MustVerify()
}

// complaints are the lines of a log that say what is wrong.
func complaints(name string) string {
	text, _ := os.ReadFile(name)
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "Error") || strings.Contains(line, "Warn") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
