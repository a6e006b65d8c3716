package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
)

// logSink is where the log of an operation goes.
type logSink struct {
	name   string   // of the request's log_file: a file in the work directory that the peer opens; "" for none
	stream *os.File // where a swrk child's standard error goes, nil for nowhere
	own    bool     // stream is ours to close
	shown  bool     // stream is standard error or output
	path   string   // of the log, "" for none
	kept   bool     // stream can be read again
}

// openLog finds a place for the log, like criu: the file of --log-file in the work directory, which is there afterwards
// even when nothing was logged; else standard error. Without the name of criu what would have gone there is kept, and
// told in case of a failure only, unless more than warnings was asked for.
//
// The RPC has room for a plain name only. Other names are opened here and given to a swrk child as its standard error.
func (r *run) openLog(work *os.File, kin kinship) (*logSink, error) {
	s := r.settings
	if s.engine.kind == engineService {
		if s.logFile == "-" || strings.ContainsRune(s.logFile, '/') {
			return nil, &usageError{err: fmt.Errorf("--log-file %s: a service takes the plain name of a file in the work directory only", s.logFile), brief: true}
		}
		return &logSink{name: s.logFile}, nil
	}
	switch {
	case s.logFile == "-":
		return &logSink{stream: r.Stdout, shown: true}, nil
	case s.logFile == "" && kin != detached && (r.asCRIU || s.level > defaultLevel):
		return &logSink{stream: r.Stderr, shown: true}, nil
	case s.logFile == "":
		fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, os.NewSyscallError("memfd_create", err)
		}
		return &logSink{stream: os.NewFile(uintptr(fd), "log"), own: true, kept: true}, nil
	}
	fd, err := unix.Openat(int(work.Fd()), s.logFile, unix.O_CREAT|unix.O_TRUNC|unix.O_RDWR|unix.O_APPEND|unix.O_CLOEXEC, 0o600)
	path := s.logFile
	if !filepath.IsAbs(path) {
		path = filepath.Join(work.Name(), path)
	}
	if err != nil {
		return nil, fmt.Errorf("the log cannot be written: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	sink := &logSink{stream: os.NewFile(uintptr(fd), path), own: true, kept: true, path: path}
	if s.engine.kind != engineBuiltin && !strings.ContainsRune(s.logFile, '/') { // which writes where we say
		sink.name = s.logFile
	}
	return sink, nil
}

func (l *logSink) close() {
	if l.own {
		l.stream.Close()
	}
}

// toStderr reports whether the peer is to log to its standard error.
func (l *logSink) toStderr() bool { return l.name == "" && l.stream != nil }

// write adds a line of our own to the log, where it is a file.
func (l *logSink) write(text string) {
	if l.kept && l.path != "" {
		fmt.Fprintf(l.stream, "Error (stasis): %s\n", text)
	}
}

// maxTail is how much of a log's end is searched for error lines, and maxLines how many of them an error shows.
const (
	maxTail  = 64 << 10
	maxLines = 4
)

// explain adds to an operation's error what the log says, where the client had no way to see it.
func (l *logSink) explain(err error) error {
	e, ok := errors.AsType[*criu.Error](err)
	if !ok {
		return err
	}
	if len(e.Log) == 0 && l.kept && e.Stage != "options" {
		e.Log = errorLines(l.tail())
		if e.LogFile == "" && len(e.Log) > 0 {
			e.LogFile = l.path
		}
	}
	return &loggedError{err: e, shown: l.shown}
}

func (l *logSink) tail() string {
	info, err := l.stream.Stat()
	if err != nil {
		return ""
	}
	from := max(info.Size()-maxTail, 0)
	text, err := io.ReadAll(io.NewSectionReader(l.stream, from, maxTail))
	if err != nil {
		return ""
	}
	return string(text)
}

// errorLines are the last error lines of a log, without time, source and the like. The lines read
// "(00.012345)    42: Error (criu/files.c:12): text". CRIU opens nearly every log with a complaint about
// RLIMIT_NOFILE that means nothing; it is left out where there is another.
func errorLines(log string) []string {
	var lines []string
	for line := range strings.Lines(log) {
		i := strings.Index(line, "Error (")
		if i < 0 || i > 40 {
			continue
		}
		if _, text, ok := strings.Cut(line[i:], "): "); ok {
			lines = append(lines, strings.TrimSpace(text))
		}
	}
	if len(lines) > 1 && strings.Contains(lines[0], "RLIMIT_NOFILE") {
		lines = lines[1:]
	}
	return lines[max(len(lines)-maxLines, 0):]
}
