package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/image"
)

// verifyCheckpoint refuses a directory without a checkpoint, of which CRIU would say that an image is empty.
func (j *job) verifyCheckpoint() error {
	if j.streams() {
		return nil
	}
	return verifyCheckpointIn(j.images)
}

func verifyCheckpointIn(dir *os.File) error {
	const inventory = "inventory.img"
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), inventory, &st, 0); errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("there is no checkpoint in %s: it has no %s", absolute(dir.Name()), inventory)
	}
	return nil
}

// verifyPages refuses images whose memory is not all there. CRIU (4.2.1) does not notice that a pages file is too short:
// the half-restored process reads at its end for ever, and the restore never returns.
//
// Only damage that is certain counts. What cannot be read here for another reason, such as pages that are compressed,
// is left to the peer's judgement. The built-in engine looks for itself.
func (j *job) verifyPages() error {
	if j.streams() || lazy(&j.raw) || j.run.settings.engine.kind == engineBuiltin {
		return nil
	}
	dir, err := image.OpenDirFile(j.images)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Names()
	if err != nil {
		return nil
	}
	for _, name := range names {
		t, id, ok := pagemapName(name)
		if !ok {
			continue
		}
		if err := verifyChain(dir, t, id); errors.Is(err, image.ErrCorrupt) {
			return fmt.Errorf("the images in %s are damaged, and nothing was restored from them: %w", j.images.Name(), err)
		}
	}
	return nil
}

func (j *job) streams() bool {
	for _, c := range j.run.settings.child {
		if c.flag == "--stream" {
			return true
		}
	}
	return false
}

func pagemapName(name string) (t image.Type, id uint64, ok bool) {
	rest, found := strings.CutSuffix(name, ".img")
	if !found {
		return t, 0, false
	}
	t = image.Pagemap
	number, found := strings.CutPrefix(rest, "pagemap-shmem-")
	if found {
		t = image.PagemapShmem
	} else if number, found = strings.CutPrefix(rest, "pagemap-"); !found {
		return t, 0, false
	}
	id, err := strconv.ParseUint(number, 10, 64)
	return t, id, err == nil
}

func verifyChain(dir image.Dir, t image.Type, id uint64) error {
	c, err := image.OpenChain(dir, t, id, uint64(os.Getpagesize()), image.Limits{})
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		if _, err := c.Next(); errors.Is(err, io.EOF) && !errors.Is(err, image.ErrCorrupt) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
