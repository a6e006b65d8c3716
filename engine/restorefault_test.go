//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

// faultVictims are dumped for restores that fail: threads, a tree with zombies and sessions, open files, a first thread that has exited,
// files whose names are gone, which look for names that were left, threads with descriptors of their own that processes
// share, processes that share memory.
var faultVictims = []struct {
	name string
	args []string
}{{"threads", nil}, {"tree", nil}, {"files", nil}, {"leaderless", nil}, {"ghosts", nil}, {"apart", []string{"shared"}}, {"sharing", nil}, {"sharing", []string{"strangers"}}}

// dumped starts a victim and dumps it.
func dumped(t *testing.T, name string, args ...string) (victim *testkit.Victim, images string) {
	t.Helper()
	testkit.Need(t, testkit.Root, testkit.VictimProgram(name))
	victim = testkit.StartVictim(t, name, args...)
	images = t.TempDir()
	dumpAway(t, New(), victim, images)
	return victim, images
}

// dumpAway dumps a victim, and returns when it is gone and its numbers are free.
func dumpAway(t *testing.T, e *Engine, victim *testkit.Victim, images string) {
	t.Helper()
	if err := dumpTo(t, e, images, victim.Pid, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := victim.Wait(); err != nil {
		t.Fatal(err)
	}
	testkit.AwaitFreeIDs(t, images)
}

// restoreFrom restores with an engine.
func restoreFrom(ctx context.Context, e *Engine, images string) error {
	ctx, cancel := context.WithTimeout(ctx, testkit.Patience)
	defer cancel()
	_, err := criu.New(e).Restore(ctx, criu.RestoreOptions{ImagesDir: images})
	return err
}

// A restore that fails at any step, or is cancelled there, says so and leaves nothing: every number of the
// tree is free, and the next restore has it all.
func TestRestoreFailsAtEveryStep(t *testing.T) {
	for _, fault := range []struct {
		name string
		want error
		err  error // what the call says; nil for the context to end instead
	}{
		{"error", errInjected, errInjected},
		{"cancelled", context.Canceled, nil},
	} {
		for _, v := range faultVictims {
			t.Run(fault.name+"/"+v.name, func(t *testing.T) {
				victim, images := dumped(t, v.name, v.args...)
				failed := 0
				for step := int64(1); ; step += 1 + step/40 { // most steps are of the same kind
					ctx, cancel := context.WithCancel(t.Context())
					var count atomic.Int64
					e := New()
					e.kernel = &linux.Kernel{Step: func(call string) error {
						if count.Add(1) != step {
							return nil
						}
						if fault.err == nil {
							cancel()
							return nil
						}
						return fmt.Errorf("%w at step %d, %s", fault.err, step, call)
					}}
					err := restoreFrom(ctx, e, images)
					cancel()
					if count.Load() < step {
						if err != nil {
							t.Fatal(err)
						}
						t.Logf("%d steps, of which %d failed", count.Load(), failed)
						break
					}
					if err == nil {
						// It could do without, or it was too late.
						victim.Restored()
						if err := victim.Kill(); err != nil {
							t.Fatal(err)
						}
					} else {
						failed++
						if !errors.Is(err, fault.want) {
							t.Errorf("step %d: %v", step, err)
						}
					}
					testkit.AwaitFreeIDs(t, images)
				}
				victim.Restored()
				victim.MustVerify()
			})
		}
	}
}

// An engine that is killed in the middle of a restore leaves nothing, up to the moment from which on the processes need it no
// more.
func TestRestoreIsKilled(t *testing.T) {
	for _, v := range faultVictims {
		if v.name == "ghosts" {
			continue // there is a moment in which a file has a name
		}
		t.Run(v.name, func(t *testing.T) {
			victim, images := dumped(t, v.name, v.args...)
			again := bringBack(t, victim, images)
			killed, lived := 0, 0
			stride := 8
			if os.Getenv(envRounds) != "" {
				stride = 1 << 30 // each step
			}
			for step := 1; dieAt(t, restoring, images, step); step += 1 + step/stride {
				killed++
				if again.left() {
					lived++
				}
			}
			t.Logf("killed %d times, %d of them when all were ready to run", killed, lived)
			if killed-lived < 10 {
				t.Errorf("the restores had ended before they could be killed")
			}
			victim.Restored()
			victim.MustVerify()
		})
	}
}

// A number that somebody else has is said, and nothing is left of the rest.
func TestRestoreOfTakenNumber(t *testing.T) {
	victim, images := dumped(t, "counter")
	if err := restoreFrom(t.Context(), New(), images); err != nil {
		t.Fatal(err)
	}
	victim.Restored()
	err := restoreFrom(t.Context(), New(), images)
	if !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), fmt.Sprint(victim.Pid)) {
		t.Errorf("a restore under a number that is taken: %v", err)
	}
	victim.MustVerify()
}

// Images that are shorter than they say, or have a byte changed, are refused or restored; there is no crash, and nothing is left
// of a restore that fails. Every image is cut and changed in a few places.
func TestRestoreOfDamagedImages(t *testing.T) {
	victim, images := dumped(t, "threads")
	names, err := filepath.Glob(filepath.Join(images, "*.img"))
	if err != nil {
		t.Fatal(err)
	}
	refused, restored := 0, 0
	for _, name := range names {
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, damage := range damages(whole) {
			if err := os.WriteFile(name, damage.content, 0o600); err != nil {
				t.Fatal(err)
			}
			err := restoreFrom(t.Context(), New(), images)
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s, %s: it hangs", filepath.Base(name), damage.what)
			}
			if err == nil {
				// What was changed did not matter to the restore. It may matter to the victim.
				restored++
				endDamaged(t, victim.Pid)
			} else {
				refused++
			}
			if err := os.WriteFile(name, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			testkit.AwaitFreeIDs(t, images)
		}
	}
	t.Logf("%d images: %d refused, %d restored all the same", len(names), refused, restored)
	if refused == 0 {
		t.Error("nothing was refused")
	}
	if err := restoreFrom(t.Context(), New(), images); err != nil {
		t.Fatal(err)
	}
	victim.Restored()
	victim.MustVerify()
}

// endDamaged kills what was restored from damaged images, which may be dead already, and of which only its parent, this program, knows.
func endDamaged(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); errors.Is(err, unix.ESRCH) {
		return
	} else if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil && !errors.Is(err, unix.ECHILD) {
		t.Fatal(err)
	}
}

type damage struct {
	what    string
	content []byte
}

func damages(whole []byte) []damage {
	var all []damage
	for _, n := range []int{0, 4, 8, 11, len(whole) / 2, len(whole) - 1} {
		if n >= 0 && n < len(whole) {
			all = append(all, damage{fmt.Sprintf("cut to %d of %d", n, len(whole)), whole[:n]})
		}
	}
	if len(whole) >= 4096 { // pages, for the most part: no place in them matters to the restore
		return all
	}
	for at := 5; at < len(whole); at += 1 + len(whole)/24 {
		flipped := append([]byte(nil), whole...)
		flipped[at] ^= 0x81
		all = append(all, damage{fmt.Sprintf("byte %d of %d changed", at, len(whole)), flipped})
	}
	return all
}
