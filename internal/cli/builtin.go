package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	builtin "stasis.example/engine"
)

// openBuiltin makes the built-in engine ready, which logs to stderr.
func (r *run) openBuiltin(stderr *os.File) (*peer, error) {
	with := builtin.Settings{Log: cmp.Or(stderr, r.Stderr), Out: r.Stdout, Stage: r.stage}
	var names []string
	for _, c := range r.settings.child {
		switch c.name {
		case "file-validation":
			with.FileValidation = c.value[0]
		case "ghost-fiemap", "no-ghost-fiemap", "allow-uprobes", "no-allow-uprobes", "deprecated", "no-deprecated", "no-log-pid", "no-stream":
			// They allow what the engine refuses by name where there is any, or ask for nothing.
		default:
			if !slices.Contains(names, c.flag) {
				names = append(names, c.flag)
			}
		}
	}
	if len(names) > 0 {
		return nil, r.refuseBuiltin(strings.Join(names, ", "))
	}
	e := builtin.New().With(with)
	var t criu.Transport = e
	if r.settings.sibling {
		t = asSibling{e}
	}
	return &peer{client: criu.New(t), name: t.String()}, nil
}

// stage is told of the stages of an operation.
func (r *run) stage(name string) {
	r.progress.stage(name)
	if name == builtin.StagePages {
		giveBack()
	}
}

// asSibling has what is restored become a child of whoever has started this program: on their behalf it is done.
type asSibling struct{ *builtin.Engine }

// Open starts a conversation on behalf of the program that has started this one.
func (s asSibling) Open(ctx context.Context, call criu.Call) (criu.Conn, error) {
	if call.Op == rpc.ReqRestore {
		call.Sibling, call.Caller = true, &criu.Caller{PID: os.Getppid(), Parent: true}
	}
	return s.Engine.Open(ctx, call)
}

// refuseBuiltin is what is said of an action or a flag that the built-in engine does not have.
func (r *run) refuseBuiltin(what string) error {
	return &usageError{err: fmt.Errorf("the built-in engine does not have %s yet: CRIU does, where it is installed: %s", what, r.wayToCRIU()), brief: true}
}

// wayToCRIU tells how to choose CRIU as the engine. By the name of criu the program has only criu's options.
func (r *run) wayToCRIU() string {
	if r.asCRIU {
		return "set " + engineVariable + "=criu:PATH, or run CRIU itself"
	}
	return "--engine criu"
}

// builtinFlags are flags that take the criu program, if it is CRIU that is asked.
func builtinFlags() []string {
	return []string{"--extra", "--experimental", "--all", "--feature", "--restore-sibling"}
}

// passOn tells the warnings of an operation that succeeded. CRIU's are for its log; what the built-in engine has to say is
// what it has left out, or cannot vouch for.
func (r *run) passOn(log *logSink) {
	if r.settings.engine.kind != engineBuiltin || r.quietly() || !log.kept || log.path != "" {
		return
	}
	for line := range strings.Lines(log.tail()) {
		if _, text, ok := strings.Cut(line, "Warn  ("); ok {
			_, text, _ = strings.Cut(text, "): ")
			r.say("%s", strings.TrimSpace(text))
		}
	}
}

// checkBuiltin checks what the built-in engine needs; with --extra or --all, also what it can do without.
func (r *run) checkBuiltin(ctx context.Context) error {
	s := r.settings
	if len(s.features) > 0 {
		return r.featuresBuiltin()
	}
	j, err := r.openJob(apart)
	if err != nil {
		return err
	}
	defer j.close()
	if err := j.peer.client.Check(ctx, criu.CheckOptions{ImagesDirFile: j.images, WorkDirFile: j.work, Raw: j.raw}); err != nil {
		if r.asCRIU {
			fmt.Fprintln(r.Stdout, "Does not look good.")
		}
		return j.fail(err)
	}
	var lacking []string
	if s.program["--extra"] || s.program["--all"] {
		lacking = builtin.New().Lacking()
	}
	if s.json {
		f, err := j.peer.client.Features(ctx)
		if err != nil {
			return j.fail(err)
		}
		r.printJSON(checkAnswer{OK: true, Engine: s.engine.String(), Features: &features{f.MemTrack, f.LazyPages, f.PIDFDStore, f.MemCompression}, Lacking: lacking})
		return nil
	}
	for _, l := range lacking {
		r.say("%s", l)
	}
	switch {
	case len(lacking) > 0: // in criu's words, and with its status
		r.exit = exitFailure
		fmt.Fprintln(r.Stdout, "Looks good but some kernel features are missing\nwhich, depending on your process tree, may cause\ndump or restore failure.")
	case !s.quiet:
		fmt.Fprintln(r.Stdout, "Looks good.")
	}
	return nil
}

// featuresBuiltin answers for single features. The status is that of criu: 0 if they are there, 1 if not, or not known.
func (r *run) featuresBuiltin() error {
	names := r.settings.features
	if r.asCRIU { // which looks at the last one only
		names = names[len(names)-1:]
	}
	e := builtin.New()
	a := featureAnswer{OK: true, Engine: r.settings.engine.String(), Features: make(map[string]bool)}
	for _, name := range names {
		f, ok := e.Feature(name)
		if !ok {
			return &usageError{err: fmt.Errorf("--feature: there is no feature %q; there are %s", name, strings.Join(builtin.FeatureNames(), ", ")), brief: true}
		}
		a.Features[name] = f.Has
		switch {
		case f.Has && !r.settings.json && !r.settings.quiet:
			fmt.Fprintln(r.Stdout, name+" is supported")
		case f.Has:
		case f.Known:
			a.no(name, f.Why)
			r.sayUnlessJSON("%s is not supported: %s", name, f.Why)
		default:
			a.no(name, f.Why)
			a.Unknown = append(a.Unknown, name)
			r.sayUnlessJSON("whether %s is supported is not known: %s", name, f.Why)
		}
		if !f.Has && !r.settings.json {
			r.exit = exitFailure
		}
	}
	if r.settings.json {
		r.printJSON(a)
	}
	return nil
}

func (a *featureAnswer) no(name, why string) {
	if a.Why == nil {
		a.Why = make(map[string]string)
	}
	a.Why[name] = why
}

func (r *run) sayUnlessJSON(format string, args ...any) {
	if !r.settings.json {
		r.say(format, args...)
	}
}

// theEnd is that of a process which a dump kills. The built-in engine does not wait for it; whoever reads that a dump has
// succeeded, or restores the tree at once, expects the process to be gone.
type theEnd struct{ pidfd int }

// watchEnd takes hold of the process, where it is to end.
func (r *run) watchEnd(name string) theEnd {
	o := &r.settings.opts
	if r.settings.engine.kind != engineBuiltin || name != "dump" || o.LeaveRunning != nil || o.LeaveStopped != nil {
		return theEnd{-1}
	}
	fd, err := unix.PidfdOpen(int(r.settings.pid), 0)
	if err != nil {
		return theEnd{-1} // the engine says what is wrong with it
	}
	return theEnd{fd}
}

// await waits until the process has ended, though not long: one with a lot of memory takes its time, and a restore waits for
// it as well.
func (e theEnd) await() {
	const milliseconds = 100
	if e.pidfd >= 0 {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(e.pidfd), Events: unix.POLLIN}}, milliseconds)
	}
}

func (e theEnd) close() {
	if e.pidfd >= 0 {
		_ = unix.Close(e.pidfd)
	}
}
