package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// progress shows how an operation comes along: in one line that is written over and over on a terminal, else in a line
// now and then. Short operations show nothing. All methods of a nil progress do nothing.
type progress struct {
	out      io.Writer
	name     string // of the operation, "dump 42"
	terminal bool
	stages   map[string]string
	size     func() int64 // bytes so far, nil where they tell nothing

	mu      sync.Mutex // guards what follows
	current string
	shown   bool // a line is on the terminal

	stop chan struct{}
	done chan struct{}
}

const (
	terminalDelay  = 200 * time.Millisecond // before anything is shown
	terminalPeriod = 100 * time.Millisecond
	linesPeriod    = 5 * time.Second
)

func startProgress(out io.Writer, terminal bool, name string, stages map[string]string, size func() int64) *progress {
	p := &progress{out: out, name: name, terminal: terminal, stages: stages, size: size, current: stages[""],
		stop: make(chan struct{}), done: make(chan struct{})}
	go p.loop()
	return p
}

// stage tells that a stage was reached.
func (p *progress) stage(name string) {
	if p == nil {
		return
	}
	if text, ok := p.stages[name]; ok {
		p.mu.Lock()
		p.current = text
		p.mu.Unlock()
	}
}

// end stops showing and clears the line.
func (p *progress) end() {
	if p == nil {
		return
	}
	close(p.stop)
	<-p.done
	if p.shown {
		fmt.Fprint(p.out, "\r\033[K")
	}
}

func (p *progress) loop() {
	defer close(p.done)
	first, period := linesPeriod, linesPeriod
	if p.terminal {
		first, period = terminalDelay, terminalPeriod
	}
	start := time.Now()
	last, lastSize := start, int64(0)
	if p.size != nil {
		lastSize = p.size()
	}
	rate := 0.0
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-timer.C:
		}
		now, size := time.Now(), int64(0)
		if p.size != nil {
			size = p.size()
			rate = nextRate(rate, float64(size-lastSize)/now.Sub(last).Seconds(), p.terminal)
			last, lastSize = now, size
		}
		p.show(now.Sub(start), size, rate)
		timer.Reset(period)
	}
}

// nextRate is the rate to be shown: what it was in the last period, or, where it changes many times a second, half of
// that and half of what was shown, which can be read without dancing.
func nextRate(shown, period float64, often bool) float64 {
	if !often || period <= 0 {
		return max(period, 0)
	}
	return (shown + period) / 2
}

func (p *progress) show(elapsed time.Duration, size int64, rate float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	parts := []string{p.name + ": " + p.current}
	if size > 0 {
		parts = append(parts, bytesText(size))
	}
	if rate >= 1 {
		parts = append(parts, bytesText(int64(rate))+"/s")
	}
	parts = append(parts, timeText(elapsed.Truncate(100*time.Millisecond)))
	line := strings.Join(parts, ", ")
	if p.terminal {
		p.shown = true
		fmt.Fprint(p.out, "\r\033[K"+line)
		return
	}
	fmt.Fprintln(p.out, line)
}

// The stages of the operations, by the names of CRIU's notifications.
func dumpStages() map[string]string {
	return map[string]string{
		"":             "starting",
		"pre-dump":     "stopping the tree",
		"network-lock": "writing",
		"pages":        "writing memory",
		"post-dump":    "finishing",
		"status-ready": "serving memory until all is fetched",
	}
}

func restoreStages() map[string]string {
	return map[string]string{
		"":                      "starting",
		"pre-restore":           "reading the images",
		"setup-namespaces":      "making the processes",
		"post-setup-namespaces": "filling them",
		"post-restore":          "checking",
		"pre-resume":            "letting them go",
		"post-resume":           "done",
	}
}
