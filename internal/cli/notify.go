package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
)

// stages acts on the notifications of an operation: it runs the action scripts, writes the pidfile and tells the
// progress.
type stages struct {
	job     *job
	pid     int  // of the tree's root, once it is known
	pidfile bool // it is to be written, when the tree is restored
	written bool
	status  *os.File // of --status-fd, nil for none
}

// needed reports whether there is anything to do. An operation without notifications is faster: where somebody may look at the tree
// before it is killed, or goes on, it has to be put in order for that. The built-in engine tells the progress without.
func (st *stages) needed() bool {
	r := st.job.run
	return st.pidfile || st.status != nil || r.progress != nil && r.settings.engine.kind != engineBuiltin || len(r.settings.scripts) > 0
}

func (st *stages) callback() func(context.Context, *criu.Event) error {
	if !st.needed() {
		return nil
	}
	return st.notify
}

func (st *stages) notify(ctx context.Context, ev *criu.Event) error {
	st.job.run.progress.stage(ev.Name)
	if ev.PID != 0 {
		st.pid = ev.PID
	}
	if ev.Name == "post-restore" && st.pidfile {
		if err := st.writePidfile(st.pid); err != nil {
			return err // refusing the notification makes the peer kill what it restored
		}
	}
	if ev.Name == "status-ready" && st.status != nil {
		if err := tellReady(st.status); err != nil {
			return err
		}
	}
	err := st.runScripts(ctx, ev.Name)
	if err != nil && (ev.Name == "pre-resume" || ev.Name == "post-resume") {
		// The tree is restored: there is nothing to go back to, and criu goes on, too.
		st.job.run.say("%v", err)
		return nil
	}
	return err
}

// tellReady writes the one byte that --status-fd is for, and closes the file.
func tellReady(status *os.File) error {
	_, err := status.Write([]byte{0})
	if err = errors.Join(err, status.Close()); err != nil {
		return fmt.Errorf("--status-fd: %w", err)
	}
	return nil
}

// writePidfile writes a pid into a file that must not exist yet, in the work directory, without a newline.
func (st *stages) writePidfile(pid int) error {
	if err := writePidfile(st.job.work, st.job.run.settings.pidfile, pid); err != nil {
		return err
	}
	st.written = true
	return nil
}

func writePidfile(work *os.File, path string, pid int) error {
	fd, err := unix.Openat(int(work.Fd()), path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		err = &os.PathError{Op: "create", Path: path, Err: err}
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("the pidfile is there already, from an earlier run perhaps; remove it or choose another: %w", err)
		}
		return fmt.Errorf("the pidfile cannot be written: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	_, err = f.WriteString(strconv.Itoa(pid))
	if err = errors.Join(err, f.Close()); err != nil {
		unix.Unlinkat(int(work.Fd()), path, 0)
		return fmt.Errorf("the pidfile cannot be written: %w", err)
	}
	return nil
}

// undo removes a pidfile whose process did not come to be after all.
func (st *stages) undo() {
	if st.written {
		unix.Unlinkat(int(st.job.work.Fd()), st.job.run.settings.pidfile, 0)
	}
}

// runScripts runs the action scripts as criu does: the last one given first, all of them even if one fails, with their
// output in the log.
func (st *stages) runScripts(ctx context.Context, stage string) error {
	s := st.job.run.settings
	if len(s.scripts) == 0 || stage == "query-ext-files" || stage == "orphan-pts-master" { // stages of the RPC only
		return nil
	}
	set := map[string]string{
		"CRTOOLS_SCRIPT_ACTION": stage,
		"CRTOOLS_IMAGE_DIR":     fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), st.job.images.Fd()),
	}
	if st.pid != 0 {
		set["CRTOOLS_INIT_PID"] = strconv.Itoa(st.pid)
	}
	var failed []error
	for _, script := range slices.Backward(s.scripts) {
		cmd := exec.CommandContext(ctx, script)
		cmd.Dir = st.job.work.Name() // criu works from there
		cmd.Env = st.job.run.env.with(set)
		if out := st.job.log.stream; out != nil {
			cmd.Stdout, cmd.Stderr = out, out
		}
		if err := cmd.Run(); err != nil && ctx.Err() != nil {
			return context.Cause(ctx) // it was killed with everything else
		} else if err != nil {
			failed = append(failed, fmt.Errorf("the action script %s, at the stage %s: %w", script, stage, err))
		}
	}
	return errors.Join(failed...)
}
