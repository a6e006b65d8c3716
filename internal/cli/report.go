package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
)

// say tells people something: one or more lines on standard error.
func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.Stderr, r.name+": "+format+"\n", args...)
}

// fail tells why the run failed and returns its exit status.
func (r *run) fail(err error) int {
	if s := r.settings; s != nil && s.json {
		r.printJSON(failure{Error: describe(err)})
	}
	if !r.silent(err) {
		for _, line := range r.explain(err) {
			fmt.Fprintln(r.Stderr, line)
		}
	}
	if i, ok := errors.AsType[interrupted](err); ok {
		return 128 + int(i.signal)
	}
	if e, ok := errors.AsType[*criu.Error](err); ok && r.asCRIU && e.Op == "dump" && e.Stage == "post-dump" && errors.Is(err, criu.ErrRefused) {
		return 255 // criu's way with a post-dump script that failed
	}
	return exitFailure
}

// silent reports whether everything was said already: criu's own log lines on standard error, of a failure that it
// reported itself.
func (r *run) silent(err error) bool {
	logged, ok := errors.AsType[*loggedError](err)
	return ok && logged.shown && errors.Is(err, criu.ErrFailed)
}

// loggedError is an operation's failure with what its log, where this program has it, says of it.
type loggedError struct {
	err   *criu.Error
	shown bool // the log goes to standard error
	hint  string
}

func (e *loggedError) Error() string { return e.err.Error() }
func (e *loggedError) Unwrap() error { return e.err }

// explain puts an error into sentences: what failed and why, what the peer said, what can be done about it.
func (r *run) explain(err error) []string {
	if usage, ok := errors.AsType[*usageError](err); ok {
		lines := []string{r.name + ": " + usage.Error()}
		if usage.list {
			lines = append(lines, "", r.usage(), "")
		}
		if !usage.brief {
			lines = append(lines, "See "+r.name+" --help.")
		}
		return lines
	}
	e, ok := errors.AsType[*criu.Error](err)
	if !ok {
		return []string{r.name + ": " + err.Error()}
	}
	reason, said := reasons(e)
	lines := []string{fmt.Sprintf("%s: cannot %s: %s", r.name, task(e), reason)}
	for _, l := range said {
		if strings.Contains(reason, l) {
			continue // an engine in this process says the same in both places
		}
		lines = append(lines, "  "+r.speaker()+": "+l)
	}
	if e.LogFile != "" {
		lines = append(lines, "  The log is "+e.LogFile+".")
	}
	for _, h := range r.hints(err) {
		lines = append(lines, "  "+h)
	}
	return lines
}

// speaker is who wrote a log.
func (r *run) speaker() string {
	if r.settings != nil && r.settings.engine.kind == engineBuiltin {
		return "engine"
	}
	return "criu"
}

// task is what an error was met at, to stand behind "cannot".
func task(e *criu.Error) string {
	switch e.Op {
	case "dump", "pre-dump":
		return fmt.Sprintf("%s process %d", e.Op, e.PID)
	case "restore", "restore as child":
		return "restore the tree"
	case "check":
		return "check the kernel"
	case "version":
		return "ask for the version"
	case "page server":
		return "start the page server"
	case "wait for page server":
		return "wait for the page server"
	}
	return "do " + e.Op
}

// reasons are why an operation failed, in the shortest true words there are, and what the peer said about it.
func reasons(e *criu.Error) (reason string, said []string) {
	said = telling(e.Log)
	if len(said) == 0 && e.Message != "" {
		said = telling(errorLines(e.Message))
		if len(said) == 0 {
			said = telling([]string{strings.TrimSpace(e.Message)})
		}
	}
	switch {
	case errors.Is(e, criu.ErrNoProcess) && e.PID != 0 && e.Err == nil && !runs(e.PID):
		return fmt.Sprintf("there is no process %d", e.PID), nil
	case errors.Is(e, criu.ErrNoProcess) && e.PID != 0 && e.Err == nil:
		return fmt.Sprintf("the peer finds no process %d, or cannot stop it", e.PID), nil
	case errors.Is(e, criu.ErrPIDInUse) && e.Err == nil:
		reason = "a pid that it needs is taken"
	case errors.Is(e, criu.ErrNoSpace) && e.Resource != "":
		reason = "the file system of " + e.Resource + " is full"
	case e.Err != nil:
		reason = e.Err.Error()
		if e.Resource != "" && !strings.Contains(reason, e.Resource) {
			reason = e.Resource + ": " + reason
		}
	case len(said) > 0:
		reason, said = said[0], said[1:]
	case e.Errno != 0:
		reason = e.Errno.Error()
	case e.Kind != nil:
		reason = e.Kind.Error()
	default:
		reason = "it failed, and nobody said why"
	}
	return reason, said
}

// telling leaves out lines that say nothing new: those that CRIU ends every failed log with, its complaint about a
// limit at the beginning of all, and repetitions.
func telling(lines []string) []string {
	var list []string
	for _, l := range lines {
		empty := false
		for _, noise := range []string{"Dumping FAILED.", "Pre-dumping FAILED.", "Restoring FAILED.", "One of more action scripts failed", "Can't setup RLIMIT_NOFILE"} {
			empty = empty || strings.Contains(l, noise)
		}
		if !empty && l != "" && !slices.Contains(list, l) {
			list = append(list, l)
		}
	}
	return list
}

// hints are what can be done about an error.
func (r *run) hints(err error) []string {
	e, ok := errors.AsType[*criu.Error](err)
	if !ok {
		return nil
	}
	var hints []string
	hint := func(format string, args ...any) { hints = append(hints, fmt.Sprintf(format, args...)) }
	dumping := e.Op == "dump" || e.Op == "pre-dump"
	text := err.Error()
	if l, ok := errors.AsType[*loggedError](err); ok && l.hint != "" {
		hint("%s", l.hint)
	}
	switch {
	case errors.Is(err, unix.ENAMETOOLONG):
	case errors.Is(err, criu.ErrConnect) && r.settings != nil && r.settings.engine.kind == engineService:
		hint("Is a service running there? `criu service --address %s` starts one.", r.settings.engine.socket())
	case errors.Is(err, criu.ErrConnect) || errors.Is(err, criu.ErrTransport) && slices.Contains([]string{"send", "receive"}, e.Stage):
		hint("Is %s CRIU, and does `%s check` work?", e.Resource, e.Resource)
	case dumping && errors.Is(err, criu.ErrNoProcess) && e.Err != nil:
	case dumping && errors.Is(err, criu.ErrNoProcess) && runs(e.PID):
		hint("There is one here, with this pid: the peer may not trace it (ptrace(2)), or sees another pid namespace.")
	case dumping && errors.Is(err, criu.ErrNoProcess):
		hint("It has ended, or its pid is that of another pid namespace.")
	case errors.Is(err, criu.ErrPIDInUse):
		hint("A restored process gets its old pid: end the process that has it now, or restore in a new pid namespace.")
	case errors.Is(err, criu.ErrNoSpace):
		hint("Make room there, or choose another directory with --images-dir.")
	case strings.Contains(text, "within dumped tree"):
		hint("This program runs below the process that it is to dump: run it from another session, or use a service.")
	case strings.Contains(text, "shell job"), strings.Contains(text, "shell-job"), strings.Contains(text, "session leader"), strings.Contains(text, "dangling tty"):
		hint(shellJobHint)
	}
	if builtin := r.settings != nil && r.settings.engine.kind == engineBuiltin; builtin && (errors.Is(err, errors.ErrUnsupported) || errors.Is(err, criu.ErrUnsupported)) {
		hint("CRIU may be able to, where it is installed: %s.", r.wayToCRIU())
	}
	if dumping && e.PID > 0 && !errors.Is(err, criu.ErrNoProcess) && runs(e.PID) {
		hint("Process %d was left as it was.", e.PID)
	}
	if e.LogFile == "" && len(e.Log) > 0 && r.settings != nil && r.settings.level < 4 {
		hint("For the whole story: -v4 --log-file FILE.")
	}
	return hints
}

const shellJobHint = "The tree belongs to a shell's session: say --shell-job, at the restore too."

// runs reports whether a process is there and no zombie.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(stat), ") ")
	return ok && rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}

// failure is what --json prints of an error.
type failure struct {
	OK    bool        `json:"ok"`
	Error description `json:"error"`
}

type description struct {
	Message  string   `json:"message"`
	Op       string   `json:"operation,omitempty"`
	Stage    string   `json:"stage,omitempty"`
	PID      int      `json:"pid,omitempty"`
	Resource string   `json:"resource,omitempty"`
	Kind     string   `json:"kind,omitempty"`
	Errno    string   `json:"errno,omitempty"`
	Log      []string `json:"log,omitempty"`
	LogFile  string   `json:"log_file,omitempty"`
}

func describe(err error) description {
	d := description{Message: err.Error()}
	if e, ok := errors.AsType[*criu.Error](err); ok {
		d.Op, d.Stage, d.PID, d.Resource, d.Log, d.LogFile = e.Op, e.Stage, e.PID, e.Resource, e.Log, e.LogFile
		if e.Kind != nil {
			d.Kind = e.Kind.Error()
		}
		if e.Errno != 0 {
			d.Errno = unix.ErrnoName(e.Errno)
		}
	}
	return d
}

func (r *run) printJSON(v any) {
	e := json.NewEncoder(r.Stdout)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		r.say("cannot write to standard output: %v", err)
	}
}

// quietly reports whether only errors are to be printed.
func (r *run) quietly() bool { return r.asCRIU || r.settings.quiet || r.settings.json }

// bytesText writes a number of bytes for people.
func bytesText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for f >= 1024 && unit < len("KMGT") {
		f /= 1024
		unit++
	}
	digits := 1
	if f >= 100 {
		digits = 0
	}
	return fmt.Sprintf("%.*f %ciB", digits, f, "KMGT"[unit-1])
}

// timeText writes a duration for people.
func timeText(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// isTerminal reports whether a file is a terminal.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
