//go:build amd64

package engine

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/plan"
	"stasis.example/engine/internal/snapshot"
)

// inherited are the files that a request hands in, by their keys.
func inherited(opts *rpc.Opts) (map[string]*os.File, error) {
	files := make(map[string]*os.File)
	for _, in := range opts.InheritFD {
		fd, err := unix.FcntlInt(uintptr(in.FD), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
			return nil, fmt.Errorf("the file on descriptor %d, which is to be inherited for %s: %w", in.FD, in.Key, err)
		}
		if last := files[in.Key]; last != nil {
			_ = last.Close() // the last one counts, as with CRIU
		}
		files[in.Key] = os.NewFile(uintptr(fd), in.Key)
	}
	return files, nil
}

// restore answers a request to restore.
func (e *Engine) restore(ctx context.Context, opts *rpc.Opts, s *session) (*rpc.Resp, error) {
	if opts == nil {
		return nil, fmt.Errorf("a restore without options: %w", unix.EBADRQC)
	}
	if err := refuseOptions(opts, true); err != nil {
		return e.refuse(&rpc.Req{Type: rpc.ReqRestore, Opts: opts}, err)
	}
	dirs, err := e.openDirs(opts)
	if err != nil {
		return nil, err
	}
	defer dirs.close()
	ctx, limit := withTimeout(ctx, opts)
	defer limit.cancel()
	r := &restore{
		dir: dirs.images, work: dirs.work, log: dirs.log, kernel: e.kernel, stopped: value(opts.LeaveStopped), otherVDSO: e.otherVDSO,
		options: plan.Options{Arch: snapshot.AMD64, ShellJob: value(opts.ShellJob)},
		files:   apply.Files{CheckSize: true, CheckBuildID: true, SkipMode: value(opts.SkipFileRWXCheck)},
	}
	r.stage = e.settings.stage
	e.validation(&r.files, opts)
	if asksForCPUInfo(opts) {
		if err := compareCPUInfo(dirs.images, *opts.CPUCap); err != nil {
			return dirs.failed(rpc.ReqRestore, "cpuinfo", err)
		}
	}
	r.allowed = s.allowed(e.without)
	// A child of this process is one of the caller's where the caller is this process.
	r.sibling = value(opts.RstSibling) && s.call.Caller != nil
	if r.inherit, err = inherited(opts); err != nil {
		return nil, err
	}
	for key, f := range r.inherit {
		defer f.Close()
		r.options.Inherit = append(r.options.Inherit, key)
	}
	if value(opts.NotifyScripts) {
		r.notify = func(stage string, pid int) error {
			_, err := s.notify(ctx, stage, pid)
			return err
		}
	}
	root, err := r.run(ctx)
	if err != nil {
		return dirs.failed(rpc.ReqRestore, "restore", limit.explain(err))
	}
	if value(opts.DisplayStats) {
		dirs.displayed("restore", displayRestore(e.out(), &r.stats))
	}
	dirs.log.info("Restore finished successfully. Tasks resumed.")
	return &rpc.Resp{Type: rpc.ReqRestore, Success: true, Restore: &rpc.RestoreResp{PID: int32(root)}}, nil
}
