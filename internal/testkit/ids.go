package testkit

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// AwaitFreeIDs waits until the ids of all processes and threads in an image directory can be used again: before a
// restore that follows closely on the end of what was dumped.
//
// A number outlives its task. The kernel tells parents and pidfds of a task's end before it gives the number back; with
// many threads and a busy machine that took up to 200 ms (kernel 6.18), during which neither /proc nor kill knows the
// number and clone3 with set_tid fails with EEXIST all the same.
func AwaitFreeIDs(t testing.TB, images string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(images, "core-*.img"))
	if err != nil {
		t.Fatal(err)
	}
	var ids []int
	for _, file := range files {
		if match := coreImage.FindStringSubmatch(filepath.Base(file)); match != nil {
			id, err := strconv.Atoi(match[1])
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		t.Fatalf("no processes in the images in %s", images)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	WaitFor(t, "the ids of what was dumped to be free", func() bool {
		ids = slices.DeleteFunc(ids, func(id int) bool { return isFree(t, null, id) })
		return len(ids) == 0
	})
}

var coreImage = regexp.MustCompile(`^core-([0-9]+)\.img$`)

// isFree reports whether an id is no process's, thread's, group's or session's. F_SETOWN is the one call that asks for
// the number alone and not for a task that has it (fs/fcntl.c: f_setown). The file is any, and no signals come of it.
func isFree(t testing.TB, file *os.File, id int) bool {
	t.Helper()
	_, err := unix.FcntlInt(file.Fd(), unix.F_SETOWN, id)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		t.Fatalf("F_SETOWN: %v", err)
	}
	return err != nil
}
