package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"stasis.example/internal/getopt"
)

// Program is a command line and what surrounds it.
type Program struct {
	Args                  []string // with the name that the program was called by
	Environ               []string
	Stdin, Stdout, Stderr *os.File
	// Exec replaces this process by another program, as execve(2).
	Exec func(path string, argv, env []string) error
	// SystemConfig is the configuration file of the system; /etc/criu/default.conf if empty.
	SystemConfig string

	rules *fileRules // nil is all of them
}

// exitFailure is the status of every failure, as with criu: those of the command line included.
const exitFailure = 1

// run is one run of the program.
type run struct {
	*Program
	env    environment
	flags  *flagSet
	name   string // that it was called by
	asCRIU bool   // it stands in for criu

	line     *commandLine
	settings *settings
	action   action
	exit     int       // status of a run without an error
	progress *progress // of the operation, nil for none that is shown
}

// Run does what the command line says and returns the status to exit with.
func (p *Program) Run(ctx context.Context) int {
	r := &run{Program: p, env: environment(p.Environ), flags: newFlagSet(), name: "stasis"}
	if len(p.Args) > 0 && filepath.Base(p.Args[0]) == "criu" {
		r.name, r.asCRIU = "criu", true
	}
	rules := allFileRules()
	if p.rules != nil {
		rules = *p.rules
	}
	if err := r.checkFileRights(rules); err != nil {
		return r.fail(err)
	}
	if err := ownProc(); err != nil {
		return r.fail(err)
	}
	if err := r.main(ctx); err != nil {
		return r.fail(err)
	}
	return r.exit
}

// ownProc lets this process read what /proc has of itself. One whose capabilities come from its file has it belong to root, as one
// that nobody may look into; who may trace it stays the same, since that takes all its capabilities.
func ownProc() error {
	if unix.Geteuid() != unix.Getuid() || unix.Getegid() != unix.Getgid() {
		return nil // and looked into it must not be
	}
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable == 1 {
		return err
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
}

func (r *run) main(ctx context.Context) error {
	args := r.Args[min(1, len(r.Args)):]
	if len(args) > 0 {
		switch args[0] {
		case counterAction:
			return runCounter(ctx, args[1:])
		case "swrk": // criu, too, looks at the word in this place only
			return r.swrk(ctx, args[1:])
		case workerAction:
			return r.serviceWorker(ctx, args[1:])
		}
	}
	line, err := readCommandLine(r.flags, args, r.env)
	if err != nil {
		return err
	}
	r.line = line
	if slices.ContainsFunc(line.items, func(i getopt.Item) bool { return i.Option.Long == "help" }) {
		return r.help(line.operands)
	}
	if r.action, err = r.findAction(line); err != nil {
		return err
	}
	system := r.SystemConfig
	if system == "" {
		system = systemConfig
	}
	if r.settings, err = readSettings(r.flags, line, system, r.env, !r.asCRIU); err != nil {
		return err
	}
	if err := r.readCommand(); err != nil {
		return err
	}
	for _, w := range r.settings.warnings {
		r.say("%s", w)
	}
	if r.settings.version {
		return r.version(ctx)
	}
	if err := r.checkCombination(); err != nil {
		return err
	}
	if r.action.lacking && r.settings.engine.kind == engineBuiltin {
		return r.refuseBuiltin("the action " + r.action.name)
	}
	if len(r.programFlags()) > 0 && r.action.peer {
		return r.execCRIU()
	}
	return r.action.run(r, ctx)
}

// action is one of the program's actions.
type action struct {
	name    string
	help    string
	args    string // what stands behind its name
	peer    bool   // it asks a peer
	own     bool   // criu has no such action
	lacking bool   // the built-in engine does not have it
	run     func(r *run, ctx context.Context) error
}

func actions() []action {
	return []action{
		{name: "dump", args: "-t PID", peer: true, run: (*run).dump, help: "freeze a process tree into files"},
		{name: "pre-dump", args: "-t PID", peer: true, lacking: true, run: (*run).preDump, help: "save the tree's memory and let it run on, to shorten a later dump"},
		{name: "restore", peer: true, run: (*run).restore, help: "bring a tree back from its files"},
		{name: "check", peer: true, run: (*run).check, help: "check that the kernel has what is needed"},
		{name: "page-server", peer: true, lacking: true, run: (*run).servePages, help: "receive memory over the network, or serve it"},
		{name: "lazy-pages", peer: true, lacking: true, run: (*run).execCRIU0, help: "fetch memory for a restored tree when it is needed"},
		{name: "dedup", peer: true, lacking: true, run: (*run).execCRIU0, help: "punch pages out of older images that newer ones have"},
		{name: "cpuinfo", args: "dump|check", peer: true, run: (*run).cpuinfo, help: "save the CPU's capabilities, or compare with saved ones"},
		{name: "service", run: (*run).serve, help: "answer CRIU's RPC on a socket"},
		{name: "swrk", args: "FD", run: (*run).lateSwrk, help: "answer CRIU's RPC on an inherited descriptor"},
		{name: "plan", args: "[DIR]", own: true, run: (*run).plan, help: "show what a restore by the built-in engine would do, or why it could not"},
		{name: "version", peer: true, own: true, run: (*run).version, help: "show the versions of stasis and of its engine"},
		{name: "demo", own: true, run: (*run).demo, help: "freeze a counter to files and bring it back, step by step"},
		{name: "completion", args: "bash|zsh|fish", own: true, run: (*run).completion, help: "print a completion script for a shell"},
		{name: "help", args: "[ACTION]", own: true, help: "show this text, or an action's options",
			run: func(r *run, _ context.Context) error { return r.help(r.line.operands[1:]) }},
	}
}

func findAction(name string) (action, bool) {
	for _, a := range actions() {
		if a.name == name {
			return a, true
		}
	}
	return action{}, false
}

// findAction is what the command line asks for.
func (r *run) findAction(line *commandLine) (action, error) {
	if len(line.operands) == 0 {
		if slices.ContainsFunc(line.items, func(i getopt.Item) bool { return i.Option.Long == "version" }) {
			a, _ := findAction("version")
			return a, nil
		}
		return action{}, &usageError{err: errors.New("no action given"), list: true}
	}
	name := line.operands[0].Text
	a, ok := findAction(name)
	switch {
	case ok && !(a.own && r.asCRIU):
		return a, nil
	case name == "exec" || name == "show":
		return action{}, &usageError{err: fmt.Errorf("the action %s is gone; see compel(1) and crit(1)", name), brief: true}
	}
	return action{}, &usageError{err: fmt.Errorf("there is no action %q", name), list: true}
}

// readCommand gives the operands behind the action to who wants them, and refuses them elsewhere.
func (r *run) readCommand() error {
	s, rest := r.settings, r.line.operands[min(1, len(r.line.operands)):]
	if s.execCmd {
		switch {
		case r.action.name != "restore":
			return &usageError{err: errors.New("--exec-cmd goes with restore only")}
		case s.detach:
			return &usageError{err: errors.New("--exec-cmd makes this process the parent of the tree, which --restore-detached excludes")}
		case len(rest) == 0:
			return &usageError{err: errors.New("--exec-cmd needs a command behind --")}
		}
		for _, o := range rest {
			s.command = append(s.command, o.Text)
		}
		return nil
	}
	most := map[string]int{"cpuinfo": 1, "plan": 1, "completion": 1, "help": 1, "swrk": 1}[r.action.name]
	if len(rest) > most {
		return &usageError{err: fmt.Errorf("%s does not take %q", r.action.name, rest[most].Text)}
	}
	return nil
}

// operand is the word behind the action, "" for none.
func (r *run) operand() string {
	if len(r.line.operands) < 2 {
		return ""
	}
	return r.line.operands[1].Text
}

// checkCombination refuses flags that exclude each other.
func (r *run) checkCombination() error {
	s := r.settings
	switch {
	case s.sibling && !s.detach:
		return &usageError{err: errors.New("--restore-sibling only makes sense with --restore-detached"), brief: true}
	case len(s.inherit) > 0 && r.action.peer && r.action.name != "restore":
		return &usageError{err: errors.New("--inherit-fd goes with restore only"), brief: true}
	}
	if s.sibling && r.action.name == "restore" {
		// The tree is to become a child of our parent's, which only a direct child of that parent can see to.
		s.needProgram("--restore-sibling")
	}
	return nil
}

// programFlags are the flags that were given and only the criu program can act on. The built-in engine is asked for some of
// them in this process.
func (r *run) programFlags() []string {
	var list []string
	for _, name := range sortedKeys(r.settings.program) {
		if r.settings.engine.kind == engineBuiltin && slices.Contains(builtinFlags(), name) {
			continue
		}
		list = append(list, name)
	}
	return list
}

// execCRIU turns into the criu program, with the same words.
func (r *run) execCRIU() error {
	s := r.settings
	what := strings.Join(r.programFlags(), ", ")
	if what == "" {
		what = r.action.name
	}
	if s.engine.kind == engineBuiltin {
		return r.refuseBuiltin(what)
	}
	if s.engine.kind != engineCRIU {
		return &usageError{err: fmt.Errorf("%s cannot be asked of a %s: CRIU's RPC has no words for it; use --engine criu", what, s.engine), brief: true}
	}
	if s.json && r.action.name == "check" && len(s.features) > 0 && len(s.program) == 1 {
		return r.checkFeatures()
	}
	if s.json {
		return &usageError{err: fmt.Errorf("--json cannot be had with %s, which the criu program does itself", what), brief: true}
	}
	path, err := findCRIU(s.engine.path, r.env.get("PATH"))
	if err != nil {
		return err
	}
	argv := append([]string{"criu"}, r.line.words()...)
	if err := r.Exec(path, argv, r.env.with(nil, engineVariable)); err != nil {
		return fmt.Errorf("cannot run %s: %w", path, err)
	}
	return nil
}

func (r *run) execCRIU0(context.Context) error { return r.execCRIU() }

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string { return "interrupted by " + unix.SignalName(i.signal) }

// untilSignal returns a context that the signals which ask a program to end do end.
func untilSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case sig := <-c:
			cancel(interrupted{sig.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(c)
		cancel(context.Canceled)
		<-done
	}
}
