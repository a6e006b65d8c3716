//go:build amd64

package engine

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
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
		passed := time.Since(l.start)
		// A log that cannot be written is no reason to fail: the dump may be good.
		_, _ = fmt.Fprintf(l.to, "(%02d.%06d) %s%s\n", int(passed.Seconds()), passed.Microseconds()%1e6, label, line)
	}
}

func (l *logger) info(format string, args ...any) { l.add(logInfo, "", format, args...) }
