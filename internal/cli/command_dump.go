package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
)

// dumpAnswer is what --json prints of a dump or pre-dump.
type dumpAnswer struct {
	OK        bool       `json:"ok"`
	PID       int        `json:"pid"`
	ImagesDir string     `json:"images_dir"`
	State     string     `json:"state"` // of the tree: gone, running or stopped
	Engine    string     `json:"engine"`
	Files     int        `json:"files"`
	Bytes     int64      `json:"bytes"`
	Seconds   float64    `json:"seconds"`
	Stats     *dumpStats `json:"stats,omitempty"`
}

type dumpStats struct {
	Freezing     float64 `json:"freezing_seconds"`
	Frozen       float64 `json:"frozen_seconds"`
	MemDump      float64 `json:"memdump_seconds"`
	MemWrite     float64 `json:"memwrite_seconds"`
	PagesScanned uint64  `json:"pages_scanned"`
	PagesParent  uint64  `json:"pages_skipped_parent"`
	PagesWritten uint64  `json:"pages_written"`
	PagesLazy    uint64  `json:"pages_lazy"`
}

var errNoPID = errors.New("no process given: name the root of the tree with --tree PID")

func (r *run) dump(ctx context.Context) error {
	return r.freeze(ctx, "dump", func(ctx context.Context, j *job, st *stages) error {
		o := criu.DumpOptions{PID: int(r.settings.pid), ImagesDirFile: j.images, WorkDirFile: j.work, Raw: j.raw, Notify: st.callback()}
		var err error
		if o.PageServer, err = j.pageServer(r.settings.pageServer || lazy(&j.raw)); err != nil {
			return err
		}
		_, err = j.peer.client.Dump(ctx, o)
		return j.fail(err)
	})
}

func (r *run) preDump(ctx context.Context) error {
	return r.freeze(ctx, "pre-dump", func(ctx context.Context, j *job, st *stages) error {
		o := criu.PreDumpOptions{PID: int(r.settings.pid), ImagesDirFile: j.images, WorkDirFile: j.work, Raw: j.raw, Notify: st.callback()}
		var err error
		if o.PageServer, err = j.pageServer(r.settings.pageServer); err != nil {
			return err
		}
		return j.explainTracking(ctx, j.fail(j.peer.client.PreDump(ctx, o)))
	})
}

// explainTracking says what CRIU, of which the pre-dump then dies, does not: that the kernel lacks what it needs.
func (j *job) explainTracking(ctx context.Context, err error) error {
	failed, ok := errors.AsType[*loggedError](err)
	if !ok || !errors.Is(err, criu.ErrFailed) && !errors.Is(err, criu.ErrTransport) || errors.Is(err, unix.ESRCH) {
		return err
	}
	if f, ferr := j.peer.client.Features(ctx); ferr == nil && !f.MemTrack {
		failed.hint = "This kernel does not track changes of memory, which a pre-dump needs (CONFIG_MEM_SOFT_DIRTY)."
	}
	return err
}

// freeze is what dump and pre-dump share.
func (r *run) freeze(ctx context.Context, name string, do func(context.Context, *job, *stages) error) error {
	s := r.settings
	j, err := r.openJob(apart)
	if err != nil {
		return err
	}
	defer j.close()
	if s.pid == 0 {
		return j.refuse(fmt.Errorf("%s: %w", name, errNoPID))
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	st := &stages{job: j, pid: int(s.pid)}
	if st.status, err = j.statusFile(); err != nil {
		return err
	}
	end := r.watchEnd(name)
	defer end.close()
	start := time.Now()
	if !r.quietly() {
		_, before := j.size()
		r.progress = startProgress(r.Stderr, isTerminal(r.Stderr), fmt.Sprintf("%s %d", name, s.pid), dumpStages(), func() int64 {
			_, now := j.size()
			return now - before
		})
	}
	err = do(ctx, j, st)
	r.progress.end()
	if err != nil {
		return err
	}
	end.await()
	r.passOn(j.log)
	r.told(j, name, time.Since(start))
	return nil
}

// told reports a dump or pre-dump that succeeded.
func (r *run) told(j *job, name string, took time.Duration) {
	s := r.settings
	stats, _ := criu.ReadDumpStats(j.work.Name())
	state := "gone"
	switch o := &s.opts; {
	case name == "pre-dump", o.LeaveRunning != nil:
		state = "running"
	case o.LeaveStopped != nil:
		state = "stopped"
	}
	files, bytes := j.size()
	if s.json {
		a := dumpAnswer{OK: true, PID: int(s.pid), ImagesDir: absolute(j.images.Name()), State: state, Engine: s.engine.String(),
			Files: files, Bytes: bytes, Seconds: took.Seconds()}
		if stats != nil {
			a.Stats = &dumpStats{Freezing: stats.Freezing.Seconds(), Frozen: stats.Frozen.Seconds(),
				MemDump: stats.MemDump.Seconds(), MemWrite: stats.MemWrite.Seconds(), PagesScanned: stats.PagesScanned,
				PagesParent: stats.PagesSkippedParent, PagesWritten: stats.PagesWritten, PagesLazy: stats.PagesLazy}
		}
		r.printJSON(a)
		return
	}
	if r.quietly() || !isTerminal(r.Stdout) {
		return
	}
	text := fmt.Sprintf("%d is in %s, %d files, %s", s.pid, j.images.Name(), files, bytesText(bytes))
	if name == "pre-dump" {
		text = fmt.Sprintf("the memory of %d is in %s, %s", s.pid, j.images.Name(), bytesText(bytes))
	}
	if stats != nil {
		text += fmt.Sprintf("; it stood still for %s of %s", timeText(stats.Frozen), timeText(took))
	}
	switch state {
	case "running":
		text += " and runs on"
	case "stopped":
		text += " and is stopped"
	}
	fmt.Fprintln(r.Stdout, text)
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
