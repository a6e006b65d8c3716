package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
)

// restoreAnswer is what --json prints of a restore.
type restoreAnswer struct {
	OK        bool    `json:"ok"`
	PID       int     `json:"pid"`
	ImagesDir string  `json:"images_dir"`
	Engine    string  `json:"engine"`
	Seconds   float64 `json:"seconds"`
}

func (r *run) restore(ctx context.Context) error {
	s := r.settings
	if !s.detach && s.engine.kind == engineService {
		return &usageError{err: fmt.Errorf("a %s cannot restore in the foreground: the tree would not be this program's child; say --restore-detached, or use --engine criu", s.engine), brief: true}
	}
	kin := apart
	if s.opts.ShellJob != nil && *s.opts.ShellJob {
		kin = together // a shell job gets the session and process group of its restorer
	}
	j, err := r.openJob(kin)
	if err != nil {
		return err
	}
	defer j.close()
	o := criu.RestoreOptions{ImagesDirFile: j.images, WorkDirFile: j.work, Raw: j.raw}
	if o.InheritFiles, err = j.inherited(); err != nil {
		return err
	}
	if o.PageServer, err = j.pageServer(s.pageServer); err != nil {
		return err
	}
	if err := j.verifyCheckpoint(); err != nil {
		return j.refuse(err)
	}
	if err := j.verifyPages(); err != nil {
		return j.refuse(err)
	}
	if s.sibling {
		o.Raw.RstSibling = new(true)
	}
	st := &stages{job: j, pidfile: s.pidfile != ""}
	start := time.Now()
	if !r.quietly() {
		r.progress = startProgress(r.Stderr, isTerminal(r.Stderr), "restore", restoreStages(), nil)
	}
	o.Notify = st.callback()
	pid, child, err := r.thaw(ctx, j, o)
	r.progress.end()
	if err != nil {
		st.undo()
		return j.fail(err)
	}
	r.passOn(j.log)
	r.restored(j, pid, time.Since(start))
	if child == nil {
		return nil
	}
	if len(s.command) > 0 {
		return r.becomeCommand(child)
	}
	return r.wait(ctx, child)
}

// thaw restores the tree: on its own, or as our child where we are to wait for it.
func (r *run) thaw(ctx context.Context, j *job, o criu.RestoreOptions) (pid int, child *criu.Process, err error) {
	ctx, stop := untilSignal(ctx)
	defer stop()
	if r.settings.detach {
		result, err := j.peer.client.Restore(ctx, o)
		return result.PID, nil, err
	}
	if child, err = j.peer.client.RestoreChild(ctx, o); err != nil {
		return 0, nil, err
	}
	return child.PID, child, nil
}

func (r *run) restored(j *job, pid int, took time.Duration) {
	s := r.settings
	switch {
	case s.json:
		r.printJSON(restoreAnswer{OK: true, PID: pid, ImagesDir: absolute(j.images.Name()), Engine: s.engine.String(), Seconds: took.Seconds()})
	case !r.quietly() && isTerminal(r.Stdout):
		fmt.Fprintf(r.Stdout, "%d is back, after %s\n", pid, timeText(took))
	}
}

// becomeCommand turns into the command of --exec-cmd, which so becomes the parent of the restored tree.
func (r *run) becomeCommand(child *criu.Process) error {
	command := r.settings.command
	path, err := exec.LookPath(command[0])
	if err == nil {
		err = r.Exec(path, command, r.env)
	}
	child.Release()
	return fmt.Errorf("the tree is restored, with the root task %d, but %s cannot be run: %w", child.PID, command[0], err)
}

// wait waits for the restored tree's root and ends as it did. Signals that ask this program to do something are for the
// task, unless the terminal sends them to both anyway.
func (r *run) wait(ctx context.Context, child *criu.Process) error {
	stop := func() {}
	if !r.asCRIU {
		stop = forward(child)
	}
	state, err := child.Wait(ctx)
	stop()
	if err != nil {
		return err
	}
	if !r.asCRIU { // criu ends with 0 however the tree ended
		r.exit = exitStatus(state)
	}
	return nil
}

// exitStatus is a status as a shell has it: 128 and the signal's number for a process that a signal ended.
func exitStatus(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// forward passes signals on to a task until the function that it returns is called.
func forward(child *criu.Process) (stop func()) {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sig := range c {
			fromTerminal := sig == syscall.SIGINT || sig == syscall.SIGQUIT || sig == syscall.SIGHUP
			if group, err := unix.Getpgid(child.PID); fromTerminal && err == nil && group == unix.Getpgrp() {
				continue
			}
			child.Signal(sig) // a task that is gone already needs no signal
		}
	}()
	return func() {
		signal.Stop(c)
		close(c)
		<-done
	}
}
