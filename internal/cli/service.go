package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	builtin "stasis.example/engine"
	"stasis.example/server"
)

// workerAction is the word that makes the program a worker process of a service. It is nobody's to type.
const workerAction = "service-worker"

// serviceSettings are what only the action service has a use for.
type serviceSettings struct {
	mode    os.FileMode // of the socket; 0 is the default
	group   string      // of the socket; "" is the process's
	workers int
	perUser int
	noGrant bool
}

func serviceFlags() []flag {
	count := func(at func(s *settings) *int) func(s *settings, in input) error {
		return func(s *settings, in input) error {
			n, err := strconv.Atoi(in.value)
			if err != nil || n < 1 {
				return fmt.Errorf("%q is no number of processes", in.value)
			}
			*at(s) = n
			return nil
		}
	}
	return []flag{
		ours("socket-mode", "permissions of the service's socket, in octal (default 0600)", func(s *settings, in input) error {
			mode, err := strconv.ParseUint(in.value, 8, 9)
			if err != nil || mode == 0 {
				return fmt.Errorf("%q are no permissions; they are written in octal, such as 0660", in.value)
			}
			s.service.mode = os.FileMode(mode)
			return nil
		}).with(arg("MODE"), own, on("service")),
		ours("socket-group", "group of the service's socket", func(s *settings, in input) error {
			s.service.group = in.value
			return nil
		}).with(arg("GROUP"), own, on("service")),
		ours("max-workers", "how many connections the service serves at once (default 256)",
			count(func(s *settings) *int { return &s.service.workers })).with(arg("N"), own, on("service")),
		ours("max-per-user", "how many of them may be one user's, root aside (default 32)",
			count(func(s *settings) *int { return &s.service.perUser })).with(arg("N"), own, on("service")),
		ours("no-grant", "do not give CAP_CHECKPOINT_RESTORE to the workers of clients that are not root", func(s *settings, _ input) error {
			s.service.noGrant = true
			return nil
		}).with(own, on("service")),
	}
}

// behind is what answers requests. The environment of a CRIU is this program's own.
func (r *run) behind(e engine) (server.Options, error) {
	switch e.kind {
	case engineBuiltin:
		return server.Options{Transport: builtin.New(), TellCaller: true, ReadConfig: r.readRequestConfig}, nil
	case engineService:
		return server.Options{}, &usageError{err: fmt.Errorf("a service in front of a %s would only be a longer way to it; use --engine builtin or --engine criu", e), brief: true}
	}
	path, err := findCRIU(e.path, r.env.get("PATH"))
	if err != nil {
		return server.Options{}, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return server.Options{}, err
	}
	return server.Options{Transport: &server.Proxy{Swrk: criu.Swrk{Path: path, Env: r.env.with(nil, engineVariable)}}}, nil
}

// swrk answers the parent process on an inherited socket.
func (r *run) swrk(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return &usageError{err: errors.New("swrk needs the number of a descriptor, and nothing else"), brief: true}
	}
	fd, err := parseFD(args[0])
	if err != nil {
		return &usageError{err: err, brief: true}
	}
	if err := refuseSecure("swrk"); err != nil {
		return err
	}
	line, err := readCommandLine(r.flags, nil, r.env)
	if err != nil {
		return err
	}
	system := r.SystemConfig
	if system == "" {
		system = systemConfig
	}
	// The peer reads the files itself. They are read here for what is wrong with them, before any request.
	if r.settings, err = readSettings(r.flags, line, system, r.env, !r.asCRIU); err != nil {
		return err
	}
	o, err := r.behind(r.settings.engine)
	if err != nil {
		return err
	}
	switch p := o.Transport.(type) {
	case *server.Proxy:
		p.Stdin, p.Stdout, p.Stderr = r.Stdin, r.Stdout, r.Stderr
	default:
		if o.Defaults, err = r.settings.requestOptions(); err != nil {
			return err
		}
	}
	return server.Swrk(ctx, fd, o)
}

// lateSwrk is swrk in a place where criu does not look for it.
func (r *run) lateSwrk(context.Context) error {
	return &usageError{err: errors.New("swrk has to be the first word, with the number of a descriptor behind it"), brief: true}
}

// serviceWorker holds one conversation of a service's. Its arguments are the engine and, encoded, the options of requests
// that do not set them.
func (r *run) serviceWorker(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("a worker is started by a service")
	}
	e, err := parseEngine(args[0])
	if err != nil {
		return err
	}
	o, err := r.behind(e)
	if err != nil {
		return err
	}
	if o.Defaults, err = decodeOptions(args[1]); err != nil {
		return err
	}
	o.Log = func(format string, args ...any) { fmt.Fprintf(r.Stderr, format+"\n", args...) }
	return server.Work(ctx, o)
}

// serve is the action service.
func (r *run) serve(ctx context.Context) error {
	s := r.settings
	if err := refuseSecure("service"); err != nil {
		return err
	}
	o, err := r.behind(s.engine)
	if err != nil {
		return err
	}
	worker := []string{r.name, workerAction, s.engine.String(), ""}
	if p, ok := o.Transport.(*server.Proxy); ok {
		worker[2] = engine{engineCRIU, p.Path}.String()
	} else if worker[3], err = s.workerOptions(); err != nil {
		return err
	}
	dir := s.workDir
	if dir == "" {
		dir = "."
	}
	work, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("the work directory: %w", err)
	}
	defer work.Close()
	l, err := r.listen(dir)
	if err != nil {
		return err
	}
	if s.detach && os.Getenv(readyVariable) == "" {
		return r.daemon(l)
	}
	return r.serveOn(ctx, l, work, o.Transport, worker)
}

// listen makes the socket, or takes the one that was inherited.
func (r *run) listen(dir string) (l *server.Listener, err error) {
	s := r.settings
	path := s.address
	if path == "" {
		path = server.DefaultSocket
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if os.Getenv(readyVariable) != "" {
		if l, err = server.FromFD(daemonSocket); err == nil {
			err = l.Own(path)
		}
		return l, err
	}
	if l, err = server.Inherited(); l != nil || err != nil {
		return l, err
	}
	group := -1
	if s.service.group != "" {
		if group, err = lookupGroup(s.service.group); err != nil {
			return nil, err
		}
	}
	return server.Listen(server.Address{Path: path, Mode: s.service.mode, Group: group})
}

func lookupGroup(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 {
		return n, nil
	}
	// Not by way of os/user, which would make the program depend on the C library.
	text, err := os.ReadFile("/etc/group")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Split(strings.TrimSpace(line), ":"); len(fields) > 2 && fields[0] == name {
			return strconv.Atoi(fields[2])
		}
	}
	return 0, fmt.Errorf("there is no group %q in /etc/group; a number will do, too", name)
}

// serveOn serves until a signal ends it.
func (r *run) serveOn(ctx context.Context, l *server.Listener, work *os.File, behind criu.Transport, worker []string) (err error) {
	s := r.settings
	defer l.Close()
	log, err := r.openLog(work, apart)
	if err != nil {
		return err
	}
	defer log.close()
	if s.pidfile != "" {
		if err := writePidfile(work, s.pidfile, os.Getpid()); err != nil {
			return err
		}
		defer unix.Unlinkat(int(work.Fd()), s.pidfile, 0)
	}
	out := io.Writer(r.Stderr)
	if log.stream != nil {
		out = log.stream
	}
	began := time.Now()
	say := func(format string, args ...any) {
		d := time.Since(began)
		fmt.Fprintf(out, "(%02d.%06d) "+format+"\n", append([]any{int(d.Seconds()), d.Microseconds() % 1e6}, args...)...)
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	runtime.GOMAXPROCS(1) // there is nothing to do at once, and threads that wake each other cost more than the rest
	srv := &server.Server{
		Worker:  server.Command{Args: worker, Env: r.Environ},
		MaxIdle: max(2, runtime.NumCPU()), Grant: !s.service.noGrant, MaxWorkers: s.service.workers, MaxPerUser: s.service.perUser, Log: say,
	}
	if err := r.ready(); err != nil {
		return err
	}
	say("serving on %v with %s", l, behind)
	err = srv.Serve(ctx, l)
	say("the service has ended")
	return err
}

// ready tells whoever waits for the service.
func (r *run) ready() error {
	if n := r.settings.statusFD; n != nil {
		fd := *n
		if os.Getenv(readyVariable) != "" {
			fd = daemonStatus
		}
		if err := server.ReadyFD(fd); err != nil {
			return fmt.Errorf("--status-fd: %w", err)
		}
	}
	if os.Getenv(readyVariable) != "" {
		os.Unsetenv(readyVariable)
		return server.ReadyFD(daemonReady)
	}
	return nil
}

// Descriptors of the background process.
const (
	daemonSocket = 3
	daemonReady  = 4 // gets one NUL byte when the service is ready
	daemonStatus = 5 // --status-fd's
	// readyVariable is set in the background process until it is ready.
	readyVariable = "STASIS_SERVICE_DAEMON"
)

// daemon starts this program once more, in the background and with the socket, and waits until it is ready.
func (r *run) daemon(l *server.Listener) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	ready, readyW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	said, err := unix.MemfdCreate("service", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	words := os.NewFile(uintptr(said), "service")
	defer words.Close()
	files := []*os.File{null, words, words, l.File(), readyW}
	if n := r.settings.statusFD; n != nil {
		status := os.NewFile(uintptr(*n), "status fd")
		defer status.Close()
		files = append(files, status)
	}
	child, err := os.StartProcess("/proc/self/exe", r.Args, &os.ProcAttr{
		Env: append(r.Environ, readyVariable+"=1"), Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	readyW.Close()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	if n, _ := ready.Read(make([]byte, 1)); n == 1 {
		child.Release()
		return l.Abandon()
	}
	child.Wait()
	text := make([]byte, 4096)
	n, _ := words.ReadAt(text, 0)
	return errors.Join(fmt.Errorf("the service did not start: %s", text[:n]), l.Close())
}
