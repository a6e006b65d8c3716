package server

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Command is how a worker process is started: the program, as a rule the service's own, with the arguments that make
// it call [Work].
type Command struct {
	Path string   // "" is /proc/self/exe
	Args []string // argv, with the name
	Env  []string // of the workers of trusted clients, and none of other clients' workers but PATH
}

// Descriptors of a worker beside its standard ones.
const (
	workerControl = 3 // the control socket
	workerListen  = 4 // of root's workers that may wait for their clients: the socket on which they come
)

// trustVariable tells a worker that its clients are root, as the service has found. No worker finds so by itself: to one that
// has become a client, that client would look like a process of the service's own user.
const trustVariable = "STASIS_CLIENT"

// safePath is the PATH of workers that have become a client.
const safePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// A launched worker.
type launched struct {
	process *os.Process
	control *os.File
	log     *os.File      // what it says for the log
	says    chan message  // what it says on the control socket; nil for one that has nothing to say there
	ended   chan struct{} // closed
	failed  bool          // once it has ended
	ahead   bool          // it is being started ahead of its client
}

// launch starts the worker for a client, or, for none, one for trusted clients that are yet to come. A worker for a client
// that is not trusted is the client from its first instruction on: its ids and groups are set between fork and exec, its
// capabilities are at most CAP_CHECKPOINT_RESTORE, it is in the client's cgroup, and its bounding set, no_new_privs and login
// uid are the client's.
func (r *running) launch(c *client) (*launched, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	control, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	logR, logW, err := os.Pipe()
	if err != nil {
		control.Close()
		return nil, err
	}
	defer logW.Close()
	path := r.Worker.Path
	if path == "" {
		path = "/proc/self/exe"
	}
	attr := &os.ProcAttr{
		Dir: "/", Env: r.Worker.Env,
		Files: []*os.File{null, null, logW, theirs},
		// A session of its own, so that a terminal's signals to the service do not end a dump halfway.
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	forRoot := c == nil || c.trust == trusted
	become := !forRoot && r.rules.become
	if forRoot {
		attr.Env = append(slices.Clone(attr.Env), trustVariable+"="+trusted.String())
	}
	listens := forRoot || !r.rules.apart
	if listens && r.maxWaiting() > 0 {
		socket, done, err := r.listener.share()
		if err != nil {
			return nil, errors.Join(err, closeBoth(control, logR))
		}
		defer done()
		attr.Files = append(attr.Files, socket)
	}
	if become {
		cgroup, err := r.becomeClient(attr, c, r.rules)
		if err != nil {
			return nil, errors.Join(err, closeBoth(control, logR))
		}
		if cgroup != nil {
			defer cgroup.Close()
		}
	}
	process, err := startAs(path, r.Worker.Args, attr, c, become, r.rules.confine)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start a worker process: %w", err), closeBoth(control, logR))
	}
	w := &launched{process: process, control: control, log: logR, ended: make(chan struct{}), ahead: c == nil}
	if listens {
		// A worker that is somebody else's has no socket to wait on, and nothing to say that would be heeded.
		w.says = make(chan message)
	}
	return w, nil
}

func closeBoth(a, b io.Closer) error { return errors.Join(a.Close(), b.Close()) }

// becomeClient fills in what makes the worker the client. The file that it returns is needed until the start.
func (s *Server) becomeClient(attr *os.ProcAttr, c *client, r rules) (*os.File, error) {
	attr.Env = []string{"PATH=" + safePath}
	if os.Geteuid() == 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
	}
	if s.Grant {
		attr.Sys.AmbientCaps = []uintptr{unix.CAP_CHECKPOINT_RESTORE}
	}
	if !r.confine {
		return nil, nil
	}
	theirs, err := cgroupOf(c.PID)
	if err != nil {
		return nil, err
	}
	ours, err := cgroupOf(os.Getpid())
	if err != nil || theirs == ours || theirs == "" {
		return nil, err
	}
	dir, err := os.OpenFile(theirs, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the client's cgroup: %w", err)
	}
	attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
	return dir, nil
}

// startAs starts a process from a thread that has taken on what the client is kept to and has no way back from. The
// thread ends with this call.
func startAs(path string, argv []string, attr *os.ProcAttr, c *client, become, confine bool) (*os.Process, error) {
	if !become {
		return os.StartProcess(path, argv, attr)
	}
	if plain, err := isPlain(c, confine); err != nil {
		return nil, err
	} else if plain {
		return os.StartProcess(path, argv, attr)
	}
	type result struct {
		process *os.Process
		err     error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the runtime ends the thread with the goroutine
		err := dropInherited()
		if err == nil && confine {
			err = takeOn(c)
		}
		var p *os.Process
		if err == nil {
			p, err = os.StartProcess(path, argv, attr)
		}
		done <- result{p, err}
	}()
	r := <-done
	return r.process, r.err
}

// isPlain reports whether there is nothing to take on or to drop, as with most clients. A thread that ends is better
// avoided: what else it has started, for whoever else is in this process, changes its parent thread with that.
func isPlain(c *client, confine bool) (bool, error) {
	ours, err := readStatus(os.Getpid(), os.Getpid())
	if err != nil {
		return false, err
	}
	if ours.capInheritable|ours.capAmbient != 0 {
		return false, nil
	}
	if !confine {
		return true, nil
	}
	theirs, err := readStatus(c.PID, c.PID)
	if err != nil {
		return false, c.gone(allRules(), err)
	}
	sameLogin := true
	if login, err := os.ReadFile(procPath(c.PID, "loginuid")); err == nil && string(login) != unsetLogin {
		own, err := os.ReadFile("/proc/self/loginuid")
		sameLogin = err != nil || string(own) == string(login)
	}
	plain := sameLogin && ours.noNewPrivs == theirs.noNewPrivs && ours.capBounding&^theirs.capBounding == 0
	return plain, c.alive()
}

// takeOn puts the calling thread under the client's limits that are inherited and cannot be set from outside.
func takeOn(c *client) error {
	theirs, err := readStatus(c.PID, c.PID)
	if err != nil {
		return err
	}
	if theirs.noNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", err)
		}
	}
	ours, err := readStatus(os.Getpid(), unix.Gettid())
	if err != nil {
		return err
	}
	for n := range 64 {
		if bit := uint64(1) << n; ours.capBounding&bit != 0 && theirs.capBounding&bit == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
				return os.NewSyscallError("prctl PR_CAPBSET_DROP", err)
			}
		}
	}
	if login, err := os.ReadFile(procPath(c.PID, "loginuid")); err == nil && string(login) != unsetLogin {
		own, ownErr := os.ReadFile("/proc/thread-self/loginuid")
		if ownErr == nil && string(own) != string(login) {
			if err := os.WriteFile("/proc/thread-self/loginuid", login, 0); err != nil {
				return fmt.Errorf("cannot take on the client's login uid: %w", err)
			}
		}
	}
	return c.alive()
}

// unsetLogin is the login uid of a process that nobody has logged in for.
const unsetLogin = "4294967295"

// dropInherited keeps capabilities that the service was given by its own parent from being passed on.
func dropInherited() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_CAP_AMBIENT_CLEAR_ALL", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // two words of 32 capabilities
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return os.NewSyscallError("capset", unix.Capset(&header, &data[0]))
}
