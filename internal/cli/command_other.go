package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
)

// checkAnswer is what --json prints of a check.
type checkAnswer struct {
	OK       bool      `json:"ok"`
	Engine   string    `json:"engine"`
	Features *features `json:"features,omitempty"`
	Lacking  []string  `json:"lacking,omitempty"` // of the built-in engine: what it does without
}

type features struct {
	MemTrack       bool `json:"mem_track"`
	LazyPages      bool `json:"lazy_pages"`
	PIDFDStore     bool `json:"pidfd_store"`
	MemCompression bool `json:"mem_compression"`
}

func (r *run) check(ctx context.Context) error {
	s := r.settings
	if s.engine.kind == engineBuiltin {
		return r.checkBuiltin(ctx)
	}
	j, err := r.openJob(apart)
	if err != nil {
		return err
	}
	defer j.close()
	ctx, stop := untilSignal(ctx)
	defer stop()
	o := criu.CheckOptions{ImagesDirFile: j.images, WorkDirFile: j.work, Raw: j.raw}
	if err := j.peer.client.Check(ctx, o); err != nil {
		if r.asCRIU {
			fmt.Fprintln(r.Stdout, "Does not look good.")
		}
		return j.fail(err)
	}
	switch {
	case s.json:
		a := checkAnswer{OK: true, Engine: s.engine.String()}
		if f, err := j.peer.client.Features(ctx); err == nil {
			a.Features = &features{f.MemTrack, f.LazyPages, f.PIDFDStore, f.MemCompression}
		}
		r.printJSON(a)
	case !s.quiet:
		fmt.Fprintln(r.Stdout, "Looks good.") // scripts look for these words of criu's
	}
	return nil
}

// featureAnswer is what --json prints of single features.
type featureAnswer struct {
	OK       bool            `json:"ok"`
	Engine   string          `json:"engine"`
	Features map[string]bool `json:"features"`
	// Of the built-in engine: which of them nobody could find out about, and why they are not there.
	Unknown []string          `json:"unknown,omitempty"`
	Why     map[string]string `json:"why,omitempty"`
}

// checkFeatures asks the criu program for each of the features, for an answer that a machine can read.
func (r *run) checkFeatures() error {
	s := r.settings
	path, err := findCRIU(s.engine.path, r.env.get("PATH"))
	if err != nil {
		return err
	}
	a := featureAnswer{OK: true, Engine: s.engine.String(), Features: make(map[string]bool)}
	for _, name := range s.features {
		cmd := exec.Command(path, "check", "--feature", name)
		cmd.Env = r.env.with(nil, engineVariable)
		out, err := cmd.CombinedOutput()
		if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
			return fmt.Errorf("cannot run %s: %w", path, err)
		}
		if strings.Contains(string(out), "Unknown feature") {
			return &usageError{err: fmt.Errorf("--feature: criu knows no feature %q", name), brief: true}
		}
		a.Features[name] = err == nil
	}
	r.printJSON(a)
	return nil
}

func (r *run) cpuinfo(ctx context.Context) error {
	what := r.operand()
	if what != "dump" && what != "check" {
		if what == "" {
			return &usageError{err: errors.New("cpuinfo needs one of the words dump and check behind it")}
		}
		return &usageError{err: fmt.Errorf("cpuinfo takes dump or check, not %q", what)}
	}
	j, err := r.openJob(apart)
	if err != nil {
		return err
	}
	defer j.close()
	ctx, stop := untilSignal(ctx)
	defer stop()
	o := criu.CPUInfoOptions{ImagesDirFile: j.images, WorkDirFile: j.work, Raw: j.raw}
	if what == "dump" {
		err = j.peer.client.CPUInfoDump(ctx, o)
	} else {
		err = j.peer.client.CPUInfoCheck(ctx, o)
	}
	if err != nil {
		return j.fail(err)
	}
	if r.settings.json {
		r.printJSON(struct {
			OK        bool   `json:"ok"`
			ImagesDir string `json:"images_dir"`
		}{true, absolute(j.images.Name())})
	}
	return nil
}

// pageServerAnswer is what --json prints of a page server, when it is ready.
type pageServerAnswer struct {
	OK   bool `json:"ok"`
	PID  int  `json:"pid"`
	Port int  `json:"port"`
}

// servePages runs a page server, in the foreground unless --daemon is given.
//
// The page server is a swrk child's child either way: of one that runs on its own (PAGE_SERVER) CRIU does not tell the
// pid.
func (r *run) servePages(ctx context.Context) error {
	s := r.settings
	if !s.detach && s.engine.kind == engineService {
		return &usageError{err: fmt.Errorf("a %s has the page server as its own child: say --daemon, or use --engine criu", s.engine), brief: true}
	}
	kin := apart
	if s.detach {
		kin = detached
	}
	j, err := r.openJob(kin)
	if err != nil {
		return err
	}
	defer j.close()
	ctx, stop := untilSignal(ctx)
	defer stop()
	o := criu.PageServerOptions{ImagesDirFile: j.images, WorkDirFile: j.work, Raw: j.raw}
	if o.PageServer, err = j.pageServer(true); err != nil {
		return err
	}
	status, err := j.statusFile()
	if err != nil {
		return err
	}
	ps, err := j.peer.client.PageServerChild(ctx, o)
	if err != nil {
		return j.fail(err)
	}
	defer ps.Close()
	if err := r.pagesReady(j, ps, status); err != nil {
		kill(ps.PID)
		return err
	}
	if s.detach {
		return nil // it runs on without its parent
	}
	return r.awaitPages(ctx, j, ps)
}

// awaitPages waits until a page server has ended. A signal that ends this program ends the page server, too.
func (r *run) awaitPages(ctx context.Context, j *job, ps *criu.PageServer) error {
	stop := context.AfterFunc(ctx, func() { kill(ps.PID) }) // it cannot be another process: its parent has not waited for it yet
	state, err := ps.Wait(context.WithoutCancel(ctx))
	switch {
	case !stop():
		return context.Cause(ctx)
	case err != nil:
		return j.fail(err)
	case !state.Success():
		return fmt.Errorf("the page server failed: %v", state)
	}
	return nil
}

func kill(pid int) {
	if pid > 0 {
		unix.Kill(pid, unix.SIGTERM)
	}
}

// pagesReady tells everybody who asked that the page server is there.
func (r *run) pagesReady(j *job, ps *criu.PageServer, status *os.File) error {
	s := r.settings
	if s.pidfile != "" && (s.detach || !r.asCRIU) { // criu writes none in the foreground
		if err := writePidfile(j.work, s.pidfile, ps.PID); err != nil {
			return err
		}
	}
	if status != nil {
		if err := tellReady(status); err != nil {
			return err
		}
	}
	switch {
	case s.json:
		r.printJSON(pageServerAnswer{true, ps.PID, ps.Port})
	case !r.quietly():
		fmt.Fprintf(r.Stdout, "page server %d listens on port %d\n", ps.PID, ps.Port)
	}
	return nil
}

// versionAnswer is what --json prints of the versions.
type versionAnswer struct {
	Stasis   string `json:"stasis"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Engine   struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
		GitID   string `json:"git_id,omitempty"`
		Error   string `json:"error,omitempty"`
	} `json:"engine"`
}

func (r *run) version(ctx context.Context) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	v, name, err := r.engineVersion(ctx)
	if r.asCRIU {
		if err != nil {
			return err
		}
		git := v.GitID
		v.GitID = ""
		fmt.Fprintf(r.Stdout, "Version: %s\n", v)
		if git != "" {
			fmt.Fprintf(r.Stdout, "GitID: %s\n", git)
		}
		return nil
	}
	a := versionAnswer{Stasis: stasisVersion(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	a.Engine.Name = name
	if r.settings.engine.kind == engineBuiltin {
		a.Engine.Name = r.settings.engine.String()
	}
	if err != nil {
		a.Engine.Error = err.Error()
	} else {
		a.Engine.Version, a.Engine.GitID = v.String(), v.GitID
	}
	if r.settings.json {
		r.printJSON(a)
		return nil
	}
	fmt.Fprintf(r.Stdout, "stasis %s (%s, %s)\n", a.Stasis, a.Go, a.Platform)
	if err != nil {
		fmt.Fprintf(r.Stdout, "engine: none (%v)\n", err)
		return nil
	}
	if r.settings.engine.kind == engineBuiltin {
		fmt.Fprintf(r.Stdout, "engine: built in, with the images and answers of CRIU %s\n", v)
		return nil
	}
	fmt.Fprintf(r.Stdout, "engine: CRIU %s (%s)\n", v, name)
	return nil
}

func (r *run) engineVersion(ctx context.Context) (criu.Version, string, error) {
	p, err := r.openPeer(nil, apart)
	if err != nil {
		return criu.Version{}, r.settings.engine.String(), err
	}
	defer p.close()
	v, err := p.client.Version(ctx)
	return v, p.name, err
}

// stasisVersion is the version of this program: its module's, or the commit that it was built from.
func stasisVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	version := "development"
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			version += " " + s.Value[:12]
		}
	}
	return version
}
