//go:build amd64

package engine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
)

// check finds out whether the kernel has what the engine cannot do without, and lets this process use it. Its error names
// everything that is missing.
func (e *Engine) check() error {
	errs := []error{rights()}
	for _, f := range features() {
		if f.need != required {
			continue
		}
		switch a, err := f.ask(e.kernel); a {
		case linux.No:
			errs = append(errs, fmt.Errorf("%s: %w", f.missing(), errors.ErrUnsupported))
		case linux.Unknown:
			errs = append(errs, fmt.Errorf("whether this kernel has %s (Linux %s) cannot be found out: %w", f.what, f.since, err))
		}
	}
	return errors.Join(errs...)
}

// Lacking says what this kernel does not have of what the engine can do without, and what that means; a line for each.
func (e *Engine) Lacking() []string {
	var list []string
	for _, f := range features() {
		if f.need != extra {
			continue
		}
		switch a, err := f.ask(e.kernel); a {
		case linux.No:
			list = append(list, f.missing()+": "+f.without)
		case linux.Unknown:
			list = append(list, fmt.Sprintf("whether this kernel has %s (Linux %s) cannot be found out: %v", f.what, f.since, err))
		}
	}
	return list
}

// rights says what this process may not do. With CAP_CHECKPOINT_RESTORE alone it can dump and restore what its own user may
// trace (ptrace(2)).
func rights() error {
	_, data, err := capabilities()
	if err != nil {
		return err
	}
	has := func(capability int) bool { return data[capability/32].Effective>>(capability%32)&1 != 0 }
	if !has(unix.CAP_CHECKPOINT_RESTORE) && !has(unix.CAP_SYS_ADMIN) {
		return fmt.Errorf("this process has neither CAP_CHECKPOINT_RESTORE (Linux 5.9) nor CAP_SYS_ADMIN, without which it may not choose pids or look at "+
			"/proc/PID/map_files: run it as root, or give the program the capability (setcap cap_checkpoint_restore+ep): %w", unix.EPERM)
	}
	return nil
}

// capabilities returns those of this thread.
func capabilities() (*unix.CapUserHeader, *[2]unix.CapUserData, error) {
	header, data := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, new([2]unix.CapUserData)
	if err := unix.Capget(header, &data[0]); err != nil {
		return nil, nil, fmt.Errorf("capget: %w", err)
	}
	return header, data, nil
}

// passOn lets programs that this thread executes have CAP_CHECKPOINT_RESTORE if it has: the processes of a restore choose the numbers
// of those that they make. Children have it anyway, but a capability that comes from the file of this program would be lost
// with the first that is executed. The thread is one that nobody else uses afterwards.
func passOn() error {
	const capability = unix.CAP_CHECKPOINT_RESTORE
	const word, bit = capability / 32, 1 << (capability % 32)
	header, data, err := capabilities()
	if err != nil || data[word].Permitted&bit == 0 || unix.Geteuid() == 0 {
		return err
	}
	data[word].Inheritable |= bit
	if err := unix.Capset(header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, capability, 0, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("prctl(PR_CAP_AMBIENT_RAISE): %w", err)
	}
	return nil // or where it is forbidden (SECBIT_NO_CAP_AMBIENT_RAISE), which shows when a number is refused
}
