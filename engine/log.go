//go:build amd64

package engine

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
)

// Levels of a log, as CRIU counts them.
const (
	logError = 1
	logWarn  = 2
	logInfo  = 3
	logDebug = 4
)

// A logger writes a log in the form of CRIU's, which other programs search for errors.
type logger struct {
	mu    sync.Mutex
	to    io.Writer // nil for nowhere
	level int
	start time.Time
	first string // the first error
}

// begin tells what writes the log, and where it runs.
func (l *logger) begin(version *rpc.Version) {
	l.info("Version: %d.%d.%d (%s)", version.MajorNumber, version.MinorNumber, value(version.Sublevel), value(version.Name))
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		text := unix.ByteSliceToString
		l.info("Running on %s %s %s %s %s", text(name.Nodename[:]), text(name.Sysname[:]), text(name.Release[:]), text(name.Version[:]), text(name.Machine[:]))
	}
}

// add writes a line, as "(00.012345) Error (dump): text". Text of several lines becomes as many.
func (l *logger) add(level int, where, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	for line := range strings.SplitSeq(text, "\n") {
		if level == logError && l.first == "" {
			l.first = line
		}
		if l.to == nil || level > l.level {
			continue
		}
		label := ""
		switch level {
		case logError:
			label = "Error (" + where + "): "
		case logWarn:
			label = "Warn  (" + where + "): "
		}
		stamp := ""
		if l.level >= logInfo { // and no times where only what went wrong is told, as with CRIU
			passed := time.Since(l.start)
			stamp = fmt.Sprintf("(%02d.%06d) ", int(passed.Seconds()), passed.Microseconds()%1e6)
		}
		// A log that cannot be written is no reason to fail: the dump may be good.
		_, _ = fmt.Fprintf(l.to, "%s%s%s\n", stamp, label, line)
	}
}

func (l *logger) info(format string, args ...any) { l.add(logInfo, "", format, args...) }
