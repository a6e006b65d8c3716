package criu

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// defaultLogFile is the name that CRIU gives its log where a request names none.
const defaultLogFile = "criu.log"

const (
	logTailBytes = 64 << 10 // how much of a log's end is searched for error lines
	logTailLines = 4        // how many error lines an Error carries
)

// logWatch finds the log that an operation writes. It remembers what stood there before, so that an old log's errors are
// never taken for this operation's.
type logWatch struct {
	dir    *os.File
	name   string
	before unix.Stat_t
	had    bool
}

func watchLog(dir *os.File, name string) *logWatch {
	if dir == nil {
		return nil
	}
	if name == "" {
		name = defaultLogFile
	}
	w := &logWatch{dir: dir, name: name}
	w.had = unix.Fstatat(int(dir.Fd()), name, &w.before, unix.AT_SYMLINK_NOFOLLOW) == nil
	return w
}

// errors returns the last error lines of the log and its path; nothing where the operation has not written one.
func (w *logWatch) errors() (lines []string, path string) {
	if w == nil {
		return nil, ""
	}
	fd, err := unix.Openat(int(w.dir.Fd()), w.name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, ""
	}
	f := os.NewFile(uintptr(fd), w.name)
	defer f.Close()
	var now unix.Stat_t
	if unix.Fstat(fd, &now) != nil || now.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, ""
	}
	if w.had && now.Ino == w.before.Ino && now.Size == w.before.Size && now.Mtim == w.before.Mtim {
		return nil, "" // an earlier operation's
	}
	path = filepath.Join(w.dir.Name(), w.name)
	if real, err := os.Readlink("/proc/self/fd/" + itoa(fd)); err == nil {
		path = real
	}
	off := max(now.Size-logTailBytes, 0)
	buf, err := io.ReadAll(io.NewSectionReader(f, off, logTailBytes))
	if err != nil {
		return nil, path
	}
	if off > 0 { // the first line is cut
		if i := bytes.IndexByte(buf, '\n'); i >= 0 {
			buf = buf[i+1:]
		}
	}
	return errorLines(string(buf)), path
}

// errorLines picks the last error lines from the text of a log, without their decoration.
func errorLines(log string) []string {
	var lines []string
	for line := range strings.Lines(log) {
		if !isErrorLine(line) {
			continue
		}
		text := strings.TrimSpace(stripLogLine(line))
		if text == "" || harmless(text) || len(lines) > 0 && lines[len(lines)-1] == text {
			continue
		}
		lines = append(lines, text)
	}
	if len(lines) > logTailLines {
		lines = lines[len(lines)-logTailLines:]
	}
	return lines
}

// CRIU's log lines read "(00.012345) Error (criu/files.c:12): text", with the pid of the restored task and a colon
// behind the time where a task of the tree wrote them.
func isErrorLine(line string) bool {
	i := strings.Index(line, "Error (")
	return i >= 0 && i < 40 && strings.Contains(line[i:], "): ")
}

// harmless tells error lines that CRIU writes in operations that succeed, too: it tries to raise its own limit of open
// files, which takes CAP_SYS_RESOURCE, and goes on without.
func harmless(text string) bool { return strings.HasPrefix(text, "rlimit: Can't setup RLIMIT_NOFILE") }

// stripLogLine returns the text of a log line.
func stripLogLine(line string) string {
	i := strings.Index(line, "Error (")
	if i < 0 || i >= 40 {
		return line
	}
	if _, text, ok := strings.Cut(line[i:], "): "); ok {
		return text
	}
	return line
}
