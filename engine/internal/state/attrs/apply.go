//go:build amd64

package attrs

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/stub"
)

// Apply applies what can be at any time once the mappings are there: what a personality may add to their protection, they have.
func Apply(t *apply.Task) error {
	b := &t.Batch
	b.Do("personality", unix.SYS_PERSONALITY, apply.Num(t.Personality))
	if t.Subreaper {
		b.Do("prctl(PR_SET_CHILD_SUBREAPER)", unix.SYS_PRCTL, apply.Num(unix.PR_SET_CHILD_SUBREAPER), apply.Num(1))
	}
	if want := t.OOMScoreAdj; want != nil {
		if err := score(t, *want); err != nil {
			return err
		}
	}
	if want := t.CoreFilter; want != nil && t.Space != nil {
		return filter(t, *want)
	}
	return nil
}

// noLogin is the login uid of a process that descends from no login.
const noLogin = ^uint32(0)

// Dumpable says whether a process may be traced by others and leaves core dumps, by the last of its threads when it has got its
// credentials, which clear it. Of those that share an address space each says so, as another's credentials clear it too.
func Dumpable(th *apply.Thread) error {
	const asRoot = 2 // what the setting fs.suid_dumpable gives, and nothing else
	s := space(th.Task)
	if s == nil || !th.Last() {
		return nil
	}
	if s.Dumpable != asRoot {
		th.Batch.Do("prctl(PR_SET_DUMPABLE)", unix.SYS_PRCTL, apply.Num(unix.PR_SET_DUMPABLE), apply.Num(s.Dumpable))
		return nil
	}
	var now uint64
	th.Batch.Try("prctl(PR_GET_DUMPABLE)", func(result uint64, err error) error { now = result; return err }, unix.SYS_PRCTL, apply.Num(unix.PR_GET_DUMPABLE))
	th.Batch.Then(func() error {
		if now == asRoot {
			return nil
		}
		th.Task.Tree.Note("%s: its core dumps were for root alone, which only fs.suid_dumpable=2 gives; it leaves none now", th.Where())
		var b apply.Batch
		b.Do("prctl(PR_SET_DUMPABLE)", unix.SYS_PRCTL, apply.Num(unix.PR_SET_DUMPABLE), apply.Num(0))
		return b.Run(th.Task.Remote, th.Remote)
	})
	return nil
}

// space returns the address space of a process, also where another one before it has the same.
func space(t *apply.Task) *snapshot.Space {
	for _, s := range t.Tree.Snapshot.Spaces {
		if s.ID == t.Task.Space {
			return s
		}
	}
	return nil
}

// score writes oom_score_adj.
func score(t *apply.Task, want int32) error {
	has, err := t.Dir.OOMScoreAdj()
	if err != nil || int32(has) == want {
		return err
	}
	err = t.WriteProc("oom_score_adj", strconv.Itoa(int(want)))
	if errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w (%d is less than what the restore may give: start it with CAP_SYS_RESOURCE, or with that score)", err, want)
	}
	return err
}

// filter writes coredump_filter.
func filter(t *apply.Task, want uint32) error {
	has, err := coreFilter(t.Dir)
	if err != nil || has == nil || *has == want {
		return err
	}
	return t.WriteProc("coredump_filter", fmt.Sprintf("%#x", want))
}

// LoginUID writes loginuid, of those threads that are there. Only each itself may, and it finds /proc in the root directory that it
// starts with.
func LoginUID(t *apply.Task) error {
	want := t.LoginUID
	if want == nil {
		return nil
	}
	has, err := t.Dir.LoginUID()
	if errors.Is(err, fs.ErrNotExist) {
		if *want != noLogin {
			t.Tree.Note("%s: the kernel keeps no login uid; it was %d", t.Where(), *want)
		}
		return nil
	}
	if err != nil || has == *want {
		return err
	}
	for _, th := range t.Threads {
		if th.Remote == nil {
			continue // it is made of one that has it
		}
		if err := login(t, th.Remote, has, *want); err != nil {
			return fmt.Errorf("%s: %w", th.Where(), err)
		}
	}
	return nil
}

func login(t *apply.Task, th *stub.Thread, has, want uint32) error {
	var b apply.Batch
	var fd uint64
	b.Try("open /proc/thread-self/loginuid", func(result uint64, err error) error { fd = result; return err },
		unix.SYS_OPENAT, apply.Num(unix.AT_FDCWD), apply.Text("/proc/thread-self/loginuid"), apply.Num(unix.O_WRONLY|unix.O_CLOEXEC))
	if err := b.Run(t.Remote, th); err != nil {
		return err
	}
	text := strconv.FormatUint(uint64(want), 10)
	b.Try("login uid", func(_ uint64, err error) error {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%d where the restore has %d: %w (needs CAP_AUDIT_CONTROL)", want, has, err)
		}
		return err
	}, unix.SYS_WRITE, apply.Num(fd), apply.Bytes([]byte(text)), apply.Num(len(text)))
	b.Do("close", unix.SYS_CLOSE, apply.Num(fd))
	return b.Run(t.Remote, th)
}
