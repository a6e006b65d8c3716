package interop

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stasis.example/image"
	"stasis.example/image/entry"
	"stasis.example/internal/testkit"
)

// deletedProgram is a victim whose program is gone.
func deletedProgram(name string) subject {
	s := victimOf(name)
	s.name = name + "-deleted"
	s.options = []string{"--ghost-limit", "8M"}
	s.start = func(t *testing.T) *testkit.Victim {
		program, err := os.ReadFile(filepath.Join(testkit.SourceRoot(), "bin", "victims", name))
		path := filepath.Join(t.TempDir(), name)
		if err := errors.Join(err, testkit.WriteProgram(path, program)); err != nil {
			t.Fatal(err)
		}
		v := testkit.VictimSpec{Name: path}.Start(t)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return v
	}
	s.check = func(t *testing.T, v *testkit.Victim) {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", v.Pid))
		if err != nil || !strings.HasSuffix(exe, " (deleted)") {
			t.Errorf("its program is %s, %v", exe, err)
		}
		v.MustVerify()
	}
	return s
}

// inSharedMemory is a victim whose files are where those of shm_open(3) are.
func inSharedMemory(name string) subject {
	s := victimOf(name)
	s.name = name + "-shm"
	s.start = func(t *testing.T) *testkit.Victim {
		dir, err := os.MkdirTemp("/dev/shm", "victim-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		return testkit.VictimSpec{Name: name, Dir: dir}.Start(t)
	}
	return s
}

// What neither of the two dumps, and why. It goes on running.
func TestGhostsRefused(t *testing.T) {
	const limit = 1 << 20
	for _, tc := range []struct {
		name    string
		make    func(t *testing.T, dir string) *os.File
		options []string
		want    string // of ours; "" for dumped
	}{
		{"as large as may be", deletedFile(limit), nil, ""},
		{"too large", deletedFile(limit + 4096), nil, "more than the limit of 1048576 for such files: raise it (ghost-limit)"},
		{"too large, and allowed", deletedFile(limit + 4096), []string{"--ghost-limit", "2M"}, ""},
		{"less is allowed", deletedFile(8192), []string{"--ghost-limit", "4096"}, "more than the limit of 4096"},
		{"with another name", otherName, nil, "the file has others"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
			for _, p := range []program{stasis, realCRIU} {
				dir := t.TempDir()
				f := tc.make(t, dir)
				victim := testkit.VictimSpec{Name: "counter", Stdin: f, Dir: dir}.Start(t)
				_ = f.Close()
				args := append([]string{"dump", "-R", "-t", fmt.Sprint(victim.Pid), "-D", t.TempDir(), "-v4"}, tc.options...)
				output, err := command(t, p, nil, args...).CombinedOutput()
				switch {
				case tc.want == "":
					if err != nil {
						t.Errorf("%s: %v\n%s", p, err, output)
					}
				case err == nil, p == stasis && !strings.Contains(string(output), tc.want):
					t.Errorf("%s: %v, want %q\n%s", p, err, tc.want, output)
				}
				victim.MustVerify()
			}
		})
	}
}

// Both write the same of files without a name: what they are, and where there is something in them.
func TestGhostImagesAreTheSame(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("ghosts"))
	victim := testkit.StartVictim(t, "ghosts")
	var all [2]map[uint64]any
	for i, p := range []program{stasis, realCRIU} {
		images := t.TempDir()
		subject{}.run(t, p, images, "dump", "-t", fmt.Sprint(victim.Pid), "--leave-running")
		all[i] = ghostsOf(t, images)
	}
	if d := cmp.Diff(all[1], all[0]); d != "" || len(all[0]) < 10 {
		t.Errorf("%d ghosts (-criu +stasis):\n%s", len(all[0]), d)
	}
	victim.MustVerify()
}

// ghostsOf returns the ghosts of a dump by their inodes, with the names that they had.
func ghostsOf(t *testing.T, images string) map[uint64]any {
	t.Helper()
	dir, err := image.OpenDir(images)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	files, err := image.ReadAll[entry.File](dir, image.Files, 0)
	if err != nil {
		t.Fatal(err)
	}
	remaps, err := image.ReadAll[entry.RemapFilePath](dir, image.RemapFilePath, 0)
	if err != nil {
		t.Fatal(err)
	}
	type ghost struct {
		Names   []string
		Entry   entry.GhostFile
		Chunks  []entry.GhostChunk
		Content [sha256.Size]byte
	}
	found, byID := make(map[uint64]any), make(map[uint32]*ghost)
	for _, r := range remaps {
		g := byID[r.RemapID]
		if g == nil {
			g = new(ghost)
			byID[r.RemapID] = g
			in, err := image.Open(dir, image.GhostFile, uint64(r.RemapID))
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if err := in.Next(&g.Entry); err != nil {
				t.Fatal(err)
			}
			content := sha256.New()
			if g.Entry.GetChunks() {
				for c := (entry.GhostChunk{}); in.Next(&c) == nil; {
					g.Chunks = append(g.Chunks, c)
					_, _ = io.Copy(content, in.Payload(int64(c.Len)))
				}
			} else {
				_, _ = io.Copy(content, in.Rest())
			}
			content.Sum(g.Content[:0])
			g.Entry.Atim = nil // a dump reads it
			found[g.Entry.GetIno()] = g
		}
		for _, f := range files {
			if f.ID == r.OrigID && !slices.Contains(g.Names, f.Reg.Name) {
				g.Names = append(g.Names, f.Reg.Name)
			}
		}
	}
	return found
}

// Who is dumped and restored again and again still has the names that were gone first.
func TestGhostsKeepTheirNames(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("ghosts"))
	victim := testkit.StartVictim(t, "ghosts")
	names := func() (all []string) {
		for fd := range 20 {
			if link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", victim.Pid, fd)); err == nil && strings.HasSuffix(link, " (deleted)") {
				all = append(all, link)
			}
		}
		return all
	}
	before := names()
	added := regexp.MustCompile(`\.stasis-[0-9a-f]{8} \(deleted\)$`)
	for range 3 {
		images := t.TempDir()
		subject{}.run(t, stasis, images, "dump", "-t", fmt.Sprint(victim.Pid))
		if _, err := victim.Wait(); err != nil {
			t.Fatal(err)
		}
		testkit.AwaitFreeIDs(t, images)
		subject{}.run(t, stasis, images, "restore", "-d")
		victim.Restored()
		after := names()
		for i := range after {
			after[i] = added.ReplaceAllString(after[i], " (deleted)")
		}
		// What was in a directory that is gone too was made above it.
		for i := range before {
			before[i] = strings.Replace(before[i], "/outer/", "/", 1)
		}
		if d := cmp.Diff(before, after); d != "" || len(before) < 10 {
			t.Fatalf("%d names (-before +after):\n%s", len(before), d)
		}
	}
	victim.MustVerify()
}

// deletedFile makes a file of so many bytes that has no name.
func deletedFile(size int) func(t *testing.T, dir string) *os.File {
	return func(t *testing.T, dir string) *os.File {
		t.Helper()
		path := filepath.Join(dir, "file")
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write([]byte(strings.Repeat("x", size)))
		if err := errors.Join(err, f.Sync(), os.Remove(path)); err != nil {
			t.Fatal(err)
		}
		return f
	}
}

// otherName makes a file that has lost the name by which it was opened, and has another.
func otherName(t *testing.T, dir string) *os.File {
	t.Helper()
	path := filepath.Join(dir, "file")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err := errors.Join(err, syscall.Link(path, filepath.Join(dir, "another")), syscall.Unlink(path)); err != nil {
		t.Fatal(err)
	}
	return f
}
