//go:build amd64

package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/plan"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/state/regfile"
	"stasis.example/image"
	"stasis.example/image/entry"
	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

// haunted opens a file without a name, below a directory, and returns it with the calls that it took.
func haunted(t *testing.T, root, name string, g *snapshot.Ghost, content string, step func(call string) error) (*apply.File, []string, error) {
	t.Helper()
	images, err := image.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()
	g.ID = 1
	w, err := image.Create(images, image.GhostFile, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Put(&entry.GhostFile{Mode: g.Mode}), writeText(w, content), w.Close()); err != nil {
		t.Fatal(err)
	}
	below, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer below.Close()
	f := &snapshot.File{ID: 1, Object: &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: name}, Ghost: 1, Mode: &g.Mode}}
	if g.Mode&unix.S_IFMT == unix.S_IFLNK {
		f.Flags = unix.O_PATH | unix.O_NOFOLLOW // as one only can be open
	}
	p := &plan.Plan{Tree: &snapshot.Tree{Files: []*snapshot.File{f}, Ghosts: []*snapshot.Ghost{g}}, Opens: []plan.Open{{File: f, How: plan.OpenPath, Itself: true}}}
	files := &apply.Files{Root: below}
	t.Cleanup(files.Close)
	var calls []string
	kernel := &linux.Kernel{Step: func(call string) error {
		calls = append(calls, call)
		if step != nil {
			return step(call)
		}
		return nil
	}}
	err = openFiles(p, files, nil, &regfile.Ghosts{Kernel: kernel, Dir: images, Tree: p.Tree})
	return files.Ours(1), calls, err
}

func writeText(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

// tree lists what is in a directory, and what is in its files.
func tree(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var text []byte
			text, err = os.ReadFile(path)
			path += "=" + string(text)
		}
		all = append(all, strings.TrimPrefix(path, dir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A file without a name is made in the directory that it was in, below the root of the restore, or the next one that is there. It
// touches nothing that is there, leads nowhere else, and leaves no name.
func TestGhostLeavesNoName(t *testing.T) {
	testkit.Need(t, testkit.Root)
	for _, tc := range []struct{ name, dir string }{
		{"/taken", "/"}, {"/dir/name", "/dir"}, {"/dir/gone/gone/name", "/dir"}, {"/taken/name", "/"}, {"/dangling", "/"},
		{"/absolute/name", "/dir"}, {"/up/name", "/"}, {"/" + strings.Repeat("n", 255), "/"},
	} {
		t.Run(tc.name[:min(len(tc.name), 20)], func(t *testing.T) {
			root := t.TempDir()
			write(t, filepath.Join(root, "taken"), "another's")
			if err := errors.Join(os.Mkdir(filepath.Join(root, "dir"), 0o755), os.Symlink("/dir", filepath.Join(root, "absolute")),
				os.Symlink("../../../../../../../..", filepath.Join(root, "up")), os.Symlink("/dir/nothing", filepath.Join(root, "dangling"))); err != nil {
				t.Fatal(err)
			}
			before := tree(t, root)
			f, _, err := haunted(t, root, tc.name, &snapshot.Ghost{Mode: unix.S_IFREG | 0o2755, UID: 61000, GID: 61001}, "hello", nil)
			if err != nil {
				t.Fatal(err)
			}
			if after := tree(t, root); !slices.Equal(before, after) {
				t.Errorf("there was %q, and is %q", before, after)
			}
			text := make([]byte, 64)
			n, err := unix.Read(int(f.Fd()), text)
			text = text[:max(n, 0)]
			if err != nil || string(text) != "hello" {
				t.Errorf("in it is %q, %v", text, err)
			}
			var st unix.Stat_t
			if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink != 0 || st.Mode != unix.S_IFREG|0o2755 || st.Uid != 61000 || st.Gid != 61001 {
				t.Errorf("%+v, %v", st, err)
			}
			link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
			if err != nil || filepath.Dir(link) != filepath.Join(root, tc.dir) {
				t.Errorf("it was made as %s, %v, want in %s", link, err, tc.dir)
			}
		})
	}
}

// Whoever puts a file of his own where one is being made gains nothing: the restore fails, and his file stays as it is.
func TestGhostIsSwapped(t *testing.T) {
	testkit.Need(t, testkit.Root)
	for _, kind := range []uint32{unix.S_IFREG, unix.S_IFDIR, unix.S_IFIFO} {
		root := t.TempDir()
		his := filepath.Join(root, "his")
		var err error
		switch kind {
		case unix.S_IFREG:
			write(t, his, "his")
		case unix.S_IFDIR:
			err = os.Mkdir(his, 0o700)
		case unix.S_IFIFO:
			err = unix.Mkfifo(his, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		swapped := ""
		f, _, err := haunted(t, root, "/name", &snapshot.Ghost{Mode: kind | 0o777, UID: 61000, GID: 61000}, "", func(call string) error {
			at := "openat(O_PATH)" // between its making and its opening
			if kind == unix.S_IFREG {
				at = "unlinkat"
			}
			if call != at || swapped != "" {
				return nil
			}
			made, err := filepath.Glob(filepath.Join(root, "name.*"))
			if err != nil || len(made) != 1 {
				t.Fatalf("the file is %q, %v", made, err)
			}
			swapped = filepath.Join(root, "kept")
			if kind == unix.S_IFDIR {
				return errors.Join(os.Rename(made[0], swapped), os.Rename(his, made[0]), os.Mkdir(his, 0o700), os.Mkdir(filepath.Join(made[0], "full"), 0o700))
			}
			return errors.Join(os.Rename(made[0], swapped), os.Link(his, made[0]))
		})
		if f != nil || err == nil || swapped == "" {
			t.Errorf("a file of mode %#o that was swapped: %v", kind, err)
		}
		var st unix.Stat_t
		if err := unix.Stat(his, &st); err != nil || st.Uid != 0 || st.Mode&0o777 == 0o777 {
			t.Errorf("his file: %+v, %v", st, err)
		}
	}
}

// Each call that makes a file may fail: then there is an error, and no name.
func TestGhostFailsAtEveryStep(t *testing.T) {
	testkit.Need(t, testkit.Root)
	for _, kind := range []uint32{unix.S_IFREG, unix.S_IFDIR, unix.S_IFIFO, unix.S_IFLNK} {
		root := t.TempDir()
		ghost := snapshot.Ghost{Mode: kind | 0o700, UID: 61000, GID: 61000, Target: "nowhere"}
		_, calls, err := haunted(t, root, "/name", &ghost, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		for step := range calls {
			count := 0
			_, _, err := haunted(t, root, "/name", &ghost, "", func(string) error {
				if count++; count == step+1 {
					return errInjected
				}
				return nil
			})
			if !errors.Is(err, errInjected) {
				t.Errorf("mode %#o, %s fails: %v", kind, calls[step], err)
			}
			if left := tree(t, root); len(left) != 1 {
				t.Errorf("mode %#o, %s fails: %q is left", kind, calls[step], left)
			}
		}
		if len(calls) < 3 {
			t.Errorf("mode %#o: only the calls %q are counted", kind, calls)
		}
	}
}

// A dump to a directory that another was in before has nothing of that one: what stood for one of its files is no part of the new tree.
func TestDumpOverAnother(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("ghosts"), testkit.VictimProgram("files"))
	images := t.TempDir()
	another := testkit.StartVictim(t, "ghosts")
	if err := dumpTo(t, New(), images, another.Pid, func(o *criu.DumpOptions) { o.LeaveRunning = true }); err != nil {
		t.Fatal(err)
	}
	another.MustVerify()
	victim := testkit.StartVictim(t, "files")
	if err := dumpTo(t, New(), images, victim.Pid, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := victim.Wait(); err != nil {
		t.Fatal(err)
	}
	testkit.AwaitFreeIDs(t, images)
	if err := restoreFrom(t.Context(), New(), images); err != nil {
		t.Fatal(err)
	}
	victim.Restored()
	victim.MustVerify()
}

// injected is a kernel one of whose calls fails, and says how many there were.
func injected(step int, count *int) *linux.Kernel {
	return &linux.Kernel{Step: func(call string) error {
		if *count++; *count == step {
			return fmt.Errorf("%w at step %d, %s", errInjected, step, call)
		}
		return nil
	}}
}

// Names that a dump makes for files which have lost theirs are there if it succeeds, and not if it fails; and a restore takes them away
// if it succeeds, and not if it fails.
func TestLinkRemapFailsAtEveryStep(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("ghosts"))
	victim := testkit.StartVictim(t, "ghosts", "linked")
	images := t.TempDir()
	links := func() int {
		names, err := filepath.Glob(filepath.Join(victim.Dir, "link_remap.*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	// Two descriptions and a mapping have the file.
	const all = 3
	for step := 1; ; step += 1 + step/50 {
		e, count := New(), 0
		e.kernel = injected(step, &count)
		err := dumpTo(t, e, images, victim.Pid, func(o *criu.DumpOptions) { o.LinkRemap = true })
		if err == nil {
			break // or the call that failed was one that it could do without
		}
		if !errors.Is(err, errInjected) || links() != 0 {
			t.Fatalf("step %d: %v, and %d names are left", step, err, links())
		}
	}
	if _, err := victim.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := links(); n != all {
		t.Fatalf("the dump has made %d names, want %d", n, all)
	}
	testkit.AwaitFreeIDs(t, images)
	for step := 1; ; step += 1 + step/20 {
		e, count := New(), 0
		e.kernel = injected(step, &count)
		err := restoreFrom(t.Context(), e, images)
		if err == nil {
			break
		}
		if !errors.Is(err, errInjected) || links() != all {
			t.Fatalf("step %d: %v, and %d names are left of %d", step, err, links(), all)
		}
		testkit.AwaitFreeIDs(t, images)
	}
	// The call that failed last may have been the one that takes a name away, for which nobody gives up a tree that is there.
	names, err := filepath.Glob(filepath.Join(victim.Dir, "link_remap.*"))
	if err != nil || len(names) > 1 {
		t.Errorf("%q is left, %v", names, err)
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	victim.Restored()
	victim.MustVerify()
}
