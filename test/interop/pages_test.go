package interop

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/testkit"
)

// Kinds of pages that not every machine has.
var (
	hugePages = testkit.Feature("transparent huge pages", func() error {
		text, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
		return lacking(err, strings.Contains(string(text), "[never]"), "they are off")
	})
	mergedPages = testkit.Feature("KSM", func() error {
		err := unix.Access(ksmDir+"run", unix.W_OK)
		return lacking(err, errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES), "its settings cannot be changed")
	})
)

// lacking is the answer of a probe.
func lacking(err error, no bool, why string) error {
	switch {
	case no:
		return testkit.Missing("%s (%v)", why, err)
	case errors.Is(err, os.ErrNotExist):
		return testkit.Missing("%v", err)
	}
	return err
}

// specialPages are the victims with pages of one kind.
func specialPages() []subject {
	pages := func(args ...string) subject { return victimOf("pages", args...) }
	return []subject{
		pages("huge").with(func(s *subject) {
			s.needs = append(s.needs, hugePages)
			s.before = func(t *testing.T, v *testkit.Victim) { await(t, v, "smaps_rollup", "AnonHugePages:", 4096) }
		}),
		pages("shared"),
		pages("zero").with(func(s *subject) {
			s.dumped = func(t *testing.T, images string) {
				// It has 20 MB of memory that was read, and 64 pages of its own; and what every program has.
				const most = 1 << 20
				if n := pageBytes(t, images); n > most {
					t.Errorf("%d bytes of pages in the images, at most %d are its own", n, most)
				}
			}
		}),
	}
}

// await waits until the kernel has given a process so much of something.
func await(t *testing.T, v *testkit.Victim, file, field string, least int) {
	t.Helper()
	name := fmt.Sprintf("/proc/%d/%s", v.Pid, file)
	testkit.WaitFor(t, fmt.Sprintf("%d of %q in %s", least, field, name), func() bool {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut("\n"+string(text), "\n"+field)
		var n int
		_, err = fmt.Sscan(rest, &n)
		return err == nil && n >= least
	})
}

// pageBytes is how long the images with pages are.
func pageBytes(t *testing.T, images string) (n int64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(images, "pages-*.img"))
	if err != nil || len(names) == 0 {
		t.Fatalf("images of pages: %q, %v", names, err)
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

// Where the kernel is told to look for pages that are alike.
const ksmDir = "/sys/kernel/mm/ksm/"

// merging has the kernel merge pages while the test runs.
func merging(t *testing.T) {
	t.Helper()
	for _, set := range []struct{ name, value string }{{"sleep_millisecs", "5"}, {"pages_to_scan", "5000"}, {"run", "1"}} {
		before, err := os.ReadFile(ksmDir + set.name)
		if err == nil {
			err = os.WriteFile(ksmDir+set.name, []byte(set.value), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(ksmDir+set.name, before, 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// Pages that are merged when they are dumped are as they were, and are merged again.
func TestMergedPagesFourWays(t *testing.T) {
	testkit.Need(t, testkit.Root, mergedPages)
	merging(t)
	// The victim has two times 64 pages with the same in them. How many may have a page in common is the kernel's to say.
	const most = 100
	areMerged := func(t *testing.T, v *testkit.Victim) { await(t, v, "ksm_merging_pages", "", most) }
	for _, s := range []subject{
		victimOf("pages", "merged"),
		victimOf("pages", "merged", "all").with(notCRIU("it does not save PR_SET_MEMORY_MERGE", "it knows no PR_SET_MEMORY_MERGE")),
	} {
		s.before = areMerged
		s.check = func(t *testing.T, v *testkit.Victim) {
			areMerged(t, v)
			v.MustVerify()
		}
		t.Run(s.name, s.survives)
	}
}

// Pages that are swapped out when they are dumped are as they were, without the swap space.
func TestSwappedPagesFourWays(t *testing.T) {
	testkit.Need(t, testkit.Root)
	swapping(t)
	s := victimOf("pages", "swapped")
	s.before = func(t *testing.T, v *testkit.Victim) {
		const most = 6 << 10 // of 8 MB, in kB
		await(t, v, "status", "VmSwap:", most)
	}
	t.Run(s.name, s.survives)
}

// swapping gives the machine some swap space while the test runs.
func swapping(t *testing.T) {
	t.Helper()
	testkit.Need(t, testkit.Program("mkswap"), testkit.Program("swapon"), testkit.Program("swapoff"))
	const megabytes = 128
	name := filepath.Join(t.TempDir(), "swap")
	// Written to the end: the file may have no holes.
	if err := os.WriteFile(name, make([]byte, megabytes<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(program string) error {
		output, err := exec.Command(program, name).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", program, name, err, bytes.TrimSpace(output))
		}
		return nil
	}
	if err := run("mkswap"); err != nil {
		t.Fatal(err)
	}
	testkit.Need(t, testkit.Feature("swap space", func() error {
		err := run("swapon")
		no := err != nil && (strings.Contains(err.Error(), unix.EPERM.Error()) || strings.Contains(err.Error(), unix.EINVAL.Error()))
		return lacking(err, no, "it is not allowed here, or the file system of the tests cannot have it")
	}))
	t.Cleanup(func() {
		if err := run("swapoff"); err != nil {
			t.Error(err)
		}
		if swaps, err := os.ReadFile("/proc/swaps"); err != nil || bytes.Contains(swaps, []byte(name)) {
			t.Errorf("it is still swapped to: %s, %v", swaps, err)
		}
	})
}
