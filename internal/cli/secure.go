package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// A program whose file gives rights to whoever executes it would do, on that user's word, what only somebody else may. This one
// opens, writes and executes what it is told, so it has three rules, one switch each. All are on; a test switches one off to show
// that the attack which it is there for would succeed.
type fileRules struct {
	noSetID      bool // it does nothing at all as a set-user-ID or set-group-ID program
	noOtherCaps  bool // nor with file capabilities but CAP_CHECKPOINT_RESTORE, which opens no files and reaches no other user's processes
	ownVariables bool // with that one it heeds no variable that says what to read or to execute
}

func allFileRules() fileRules { return fileRules{true, true, true} }

// safePath is the PATH of a program whose file gives it rights.
const safePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// harmless are the variables that say what output looks like, and nothing of files.
var harmless = []string{"TERM", "LANG", "LC_ALL", "NO_COLOR", "COLUMNS"}

// checkFileRights holds the program against the rights that its file gave it. Nothing was read, and nothing written, before.
func (r *run) checkFileRights(rules fileRules) error {
	if rules.noSetID && (unix.Geteuid() != unix.Getuid() || unix.Getegid() != unix.Getgid()) {
		return errors.New("this program is set-user-ID or set-group-ID, with which anybody could have it read, write and dump what is its owner's; " +
			"take that bit away (chmod a-s), and have a service run for those who are not root")
	}
	secure, err := isSecure()
	if err != nil || !secure {
		return err
	}
	if rules.noOtherCaps && unix.Getuid() != 0 {
		given, err := givenCaps()
		if err != nil {
			return err
		}
		if more := given &^ (1 << unix.CAP_CHECKPOINT_RESTORE); more != 0 {
			return fmt.Errorf("this program's file gives it capabilities (mask %#x) with which anybody could have it read, write or dump what is somebody else's; "+
				"it works with CAP_CHECKPOINT_RESTORE alone (setcap cap_checkpoint_restore+ep)", more)
		}
	}
	if rules.ownVariables {
		kept := environment{"PATH=" + safePath}
		for _, name := range harmless {
			if value := r.env.get(name); value != "" {
				kept = append(kept, name+"="+value)
			}
		}
		own := *r.Program
		own.Environ = slices.Clone(kept)
		r.Program, r.env = &own, kept
		os.Clearenv()
	}
	return nil
}

// isSecure reports whether the kernel has given this program rights that whoever executed it has not (getauxval(3)).
func isSecure() (bool, error) {
	const atSecure = 23
	auxv, err := unix.Auxv()
	if errors.Is(err, unix.ENOENT) {
		// The dynamic linker takes variables such as TMPDIR from a program with such rights, and moves the end of the list of
		// variables, behind which Go looks for what the kernel says; and /proc/self/auxv is not this program's to read then. Without
		// such rights one of the two is there.
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot tell whether the program's file gives it rights: %w", err)
	}
	return slices.ContainsFunc(auxv, func(v [2]uintptr) bool { return v[0] == atSecure && v[1] != 0 }), nil
}

// givenCaps are the capabilities of this process that it did not keep from the program before.
func givenCaps() (mask uint64, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var words [2]unix.CapUserData // of 32 capabilities each
	if err := unix.Capget(&header, &words[0]); err != nil {
		return 0, os.NewSyscallError("capget", err)
	}
	mask = uint64(words[1].Permitted)<<32 | uint64(words[0].Permitted)
	for n := range 64 {
		if mask&(1<<n) == 0 {
			continue
		}
		kept, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(n), 0, 0)
		if err != nil {
			return 0, os.NewSyscallError("prctl PR_CAP_AMBIENT", err)
		}
		if kept != 0 {
			mask &^= 1 << n
		}
	}
	return mask, nil
}

// refuseSecure refuses to answer requests with rights that the program has from its file: whoever starts it would be asked for
// with these.
func refuseSecure(what string) error {
	secure, err := isSecure()
	if err == nil && secure {
		err = fmt.Errorf("%s is not done by a program that is set-user-ID or has file capabilities: start it with the rights that it is to have", what)
	}
	return err
}
