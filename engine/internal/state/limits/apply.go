//go:build amd64

package limits

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
)

// Apply sets the limits that differ from those that the process has. The last thread does it, before it gets its credentials: all
// that a limit could forbid is done by then.
func Apply(th *apply.Thread) error {
	t := th.Task
	if !th.Last() || len(t.Limits) == 0 {
		return nil
	}
	has, err := t.Dir.Limits()
	if err != nil {
		return err
	}
	for i, want := range t.Limits {
		if i < len(has) && has[i].Soft == want.Soft && has[i].Hard == want.Hard {
			continue
		}
		th.Batch.Try(names[i], func(_ uint64, err error) error {
			if errors.Is(err, unix.EPERM) && i < len(has) && want.Hard > has[i].Hard {
				return fmt.Errorf("at most %s is wanted, and at most %s is allowed here: raising it takes CAP_SYS_RESOURCE, or a restore that is started with a higher one: %w",
					text(want.Hard), text(has[i].Hard), err)
			}
			if err != nil {
				return fmt.Errorf("%s, at most %s: %w", text(want.Soft), text(want.Hard), err)
			}
			return nil
		}, unix.SYS_PRLIMIT64, apply.Num(0), apply.Num(i), apply.Words(want.Soft, want.Hard), apply.Num(0))
	}
	return nil
}

// names are the limits by their numbers.
var names = [number]string{"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC", "RLIMIT_NOFILE",
	"RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME"}

func text(v uint64) string {
	if v == ^uint64(0) {
		return "unlimited"
	}
	return fmt.Sprint(v)
}
