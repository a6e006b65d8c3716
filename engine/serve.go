//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
	"stasis.example/image"
	"stasis.example/internal/linux"
)

// serve does what a request asks.
func (e *Engine) serve(ctx context.Context, req *rpc.Req, s *session) (*rpc.Resp, error) {
	switch req.Type {
	case rpc.ReqVersion:
		return &rpc.Resp{Type: req.Type, Success: true, Version: e.version()}, nil
	case rpc.ReqCheck:
		if err := e.check(); err != nil {
			return nil, err
		}
		return &rpc.Resp{Type: req.Type, Success: true}, nil
	case rpc.ReqFeatureCheck:
		return e.featureCheck(req.Features)
	case rpc.ReqCPUInfoDump, rpc.ReqCPUInfoCheck:
		return e.cpuinfo(req.Type, req.Opts)
	case rpc.ReqDump:
		return e.dump(ctx, req.Opts, s)
	case rpc.ReqRestore:
		return e.restore(ctx, req.Opts, s)
	}
	return e.refuse(req, fmt.Errorf("the built-in engine cannot do %v yet: %w", req.Type, errors.ErrUnsupported))
}

// refuse answers a request that cannot be done, and notes in its log why: there are callers who look nowhere else.
func (e *Engine) refuse(req *rpc.Req, why error) (*rpc.Resp, error) {
	if req.Opts == nil {
		return nil, why
	}
	dirs, err := e.openDirs(req.Opts)
	if err != nil {
		return nil, why
	}
	defer dirs.close()
	return dirs.failed(req.Type, "request", why)
}

// version is that of the CRIU whose images and answers the engine's are like.
func (e *Engine) version() *rpc.Version {
	return &rpc.Version{MajorNumber: 4, MinorNumber: 2, Sublevel: new(int32(1)), Name: new("stasis, built-in engine")}
}

// dump answers a request to dump.
func (e *Engine) dump(ctx context.Context, opts *rpc.Opts, s *session) (*rpc.Resp, error) {
	if opts == nil {
		return nil, fmt.Errorf("a dump without options: %w", unix.EBADRQC)
	}
	if err := refuseOptions(opts, false); err != nil {
		return e.refuse(&rpc.Req{Type: rpc.ReqDump, Opts: opts}, err)
	}
	pid, socket := int(value(opts.PID)), uint64(0)
	switch {
	case s.ofCaller(opts.PID):
		pid, socket = s.call.Caller.PID, s.call.Caller.Socket
	case pid <= 0:
		return nil, fmt.Errorf("a process cannot dump itself in process: %w", unix.EBADRQC)
	}
	dirs, err := e.openDirs(opts)
	if err != nil {
		return nil, err
	}
	defer dirs.close()
	ctx, limit := withTimeout(ctx, opts)
	defer limit.cancel()
	d := &dump{pid: pid, dir: dirs.images, work: dirs.work, log: dirs.log, kernel: e.kernel, oldPages: e.oldPages, socket: socket, shellJob: value(opts.ShellJob),
		cgroup: value(opts.FreezeCgroup), external: opts.External, cgroups: cgroupMode(opts), cpuinfo: asksForCPUInfo(opts), buildIDs: e.settings.FileValidation != "filesize", ghosts: ghostLimit(opts), links: value(opts.LinkRemap)}
	d.stage = e.settings.stage
	switch {
	case value(opts.LeaveStopped):
		d.fate = leftStopped
	case value(opts.LeaveRunning):
		d.fate = leftRunning
	}
	if value(opts.NotifyScripts) {
		d.notify = func(stage string) (*rpc.Opts, error) { return s.notify(ctx, stage, 0) }
	}
	if err := d.run(ctx); err != nil {
		return dirs.failed(rpc.ReqDump, "dump", limit.explain(err))
	}
	if value(opts.DisplayStats) {
		dirs.displayed("dump", displayDump(e.out(), &d.stats))
	}
	dirs.log.info("Dumping finished successfully")
	return &rpc.Resp{Type: rpc.ReqDump, Success: true, Dump: &rpc.DumpResp{Restored: new(false)}}, nil
}

// A timeLimit is what a request says of how long it may take, from beginning to end.
type timeLimit struct {
	ctx     context.Context
	cancel  context.CancelFunc
	seconds uint32 // 0 for as long as it takes
}

func withTimeout(ctx context.Context, opts *rpc.Opts) (context.Context, *timeLimit) {
	limit := &timeLimit{seconds: value(opts.Timeout)}
	if limit.seconds > 0 {
		limit.ctx, limit.cancel = context.WithTimeout(ctx, time.Duration(limit.seconds)*time.Second)
	} else {
		limit.ctx, limit.cancel = context.WithCancel(ctx)
	}
	return limit.ctx, limit
}

// explain says so where time has run out.
func (l *timeLimit) explain(err error) error {
	if err == nil || l.seconds == 0 || !errors.Is(l.ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("it took longer than --timeout allows, %d s, and was taken back: %w", l.seconds, err)
}

// value is that of an optional field, or zero.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// directories are where a request wants its files.
type directories struct {
	images  image.Dir
	work    image.Dir
	log     *logger
	logFile *os.File
}

// failed notes in the log why a request failed, and answers with what the log said first.
func (d *directories) failed(typ rpc.ReqType, where string, err error) (*rpc.Resp, error) {
	d.log.add(logError, where, "%v", err)
	return &rpc.Resp{Type: typ, CrErrmsg: &d.log.first}, err
}

// displayed notes that statistics could not be printed. What was asked for is done by then, and cannot be taken back.
func (d *directories) displayed(where string, err error) {
	if err != nil {
		d.log.add(logWarn, where, "%v", err)
	}
}

func (e *Engine) openDirs(opts *rpc.Opts) (*directories, error) {
	d := &directories{log: &logger{level: logWarn, start: time.Now()}}
	if opts.LogLevel != nil {
		d.log.level = int(*opts.LogLevel)
	}
	err := linux.Proc{}.Ours()
	if err != nil {
		return nil, err
	}
	// The directory by its path, where no descriptor was given, is for callers that could not give one.
	if path := value(opts.ImagesDir); path != "" && opts.ImagesDirFD < 0 {
		d.images, err = image.OpenDir(path)
	} else {
		d.images, err = openDirFD(int(opts.ImagesDirFD))
	}
	if err != nil {
		return nil, err
	}
	d.work = d.images
	if opts.WorkDirFD != nil && *opts.WorkDirFD >= 0 {
		if d.work, err = openDirFD(int(*opts.WorkDirFD)); err != nil {
			d.work = d.images
			d.close()
			return nil, err
		}
	}
	if err := d.openLog(opts, e.logTo()); err != nil {
		d.close()
		return nil, err
	}
	d.log.begin(e.version())
	return d, nil
}

func openDirFD(fd int) (image.Dir, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("directory on descriptor %d: %w", fd, err)
	}
	f := os.NewFile(uintptr(dup), fmt.Sprintf("descriptor %d", fd))
	defer f.Close()
	return image.OpenDirFile(f)
}

// openLog opens the log: in the work directory, "criu.log" unless it was named, or standard error.
func (d *directories) openLog(opts *rpc.Opts, stderr io.Writer) error {
	name := value(opts.LogFile)
	switch {
	case name == "" && value(opts.LogToStderr):
		d.log.to = stderr
		return nil
	case name == "":
		name = "criu.log"
	case strings.Contains(name, "/"):
		return fmt.Errorf("the log file %q has a slash in its name: %w", name, unix.EBADRQC)
	}
	f, err := d.work.Create(name)
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	d.log.to = f
	if file, ok := f.(*os.File); ok {
		d.logFile = file
	}
	return nil
}

func (d *directories) close() {
	if d.logFile != nil {
		_ = d.logFile.Close()
	}
	if d.work != d.images {
		_ = d.work.Close()
	}
	_ = d.images.Close()
}
