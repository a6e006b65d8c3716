package cli

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// output is a Writer that may be read while it is written to.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func TestProgressOnTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		var size atomic.Int64
		p := startProgress(&out, true, "dump 42", dumpStages(), size.Load)
		time.Sleep(terminalDelay / 2)
		if s := out.String(); s != "" {
			t.Errorf("a short operation shows %q", s)
		}
		p.stage("network-lock")
		p.stage("some-new-stage")
		size.Store(100 << 20)
		time.Sleep(terminalDelay)
		synctest.Wait()
		s := out.String()
		for _, want := range []string{"\r\033[Kdump 42: writing", "100 MiB", "/s"} {
			if !strings.Contains(s, want) {
				t.Errorf("%q is not in %q", want, s)
			}
		}
		if strings.Contains(s, "\n") {
			t.Errorf("more than one line: %q", s)
		}
		p.end()
		if s := out.String(); !strings.HasSuffix(s, "\r\033[K") {
			t.Errorf("the line is left: %q", s)
		}
	})
}

func TestProgressInLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		var size atomic.Int64
		p := startProgress(&out, false, "dump 42", dumpStages(), size.Load)
		p.stage("network-lock")
		time.Sleep(linesPeriod - time.Millisecond)
		synctest.Wait()
		if s := out.String(); s != "" {
			t.Errorf("an operation of some seconds shows %q", s)
		}
		size.Store(50 << 20)
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		size.Store(150 << 20)
		time.Sleep(linesPeriod)
		synctest.Wait()
		p.stage("status-ready")
		time.Sleep(linesPeriod)
		synctest.Wait()
		p.end()
		want := "dump 42: writing, 50.0 MiB, 10.0 MiB/s, 5.0 s\ndump 42: writing, 150 MiB, 20.0 MiB/s, 10.0 s\ndump 42: serving memory until all is fetched, 150 MiB, 15.0 s\n"
		if s := out.String(); s != want {
			t.Errorf("got %q, want %q", s, want)
		}
	})
}

func TestProgressOfNothing(t *testing.T) {
	var p *progress
	p.stage("pre-dump")
	p.end()
	synctest.Test(t, func(t *testing.T) {
		var out output
		p := startProgress(&out, true, "restore", restoreStages(), nil)
		time.Sleep(time.Second)
		p.end()
		if s := out.String(); !strings.Contains(s, "restore: starting, ") || strings.Contains(s, "B/s") {
			t.Errorf("got %q", s)
		}
	})
}
