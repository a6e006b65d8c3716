//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/engine/internal/ceiling"
	"stasis.example/internal/proc"
	"stasis.example/internal/testkit"
)

// Users that nobody has.
const (
	mallory = 61500
	victor  = 61501
)

// onBehalf is an engine that works for somebody, as in a server.
type onBehalf struct {
	*Engine
	caller criu.Caller
}

func (e *onBehalf) Open(ctx context.Context, call criu.Call) (criu.Conn, error) {
	call.Caller = &e.caller
	return e.Engine.Open(ctx, call)
}

// drop is a command that gives up root's rights.
func drop(uid int, more ...string) []string {
	user := strconv.Itoa(uid)
	return append(append([]string{"/usr/bin/setpriv", "--reuid", user, "--regid", user, "--clear-groups"}, more...), "--")
}

// shellFirst is a command that does something first.
func shellFirst(first string) []string { return []string{"/bin/sh", "-c", first + `; exec "$@"`, "sh"} }

// pythonFirst is the same in Python.
func pythonFirst(first string) []string {
	return []string{testkit.PythonPath, "-c", first + "\nimport os, sys\nos.execv(sys.argv[1], sys.argv[1:])"}
}

// confined has a filter of seccomp that lets everything pass.
const confined = `
import ctypes, struct
insn = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7fff0000))
class Prog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
prog = Prog(1, ctypes.addressof(insn))
if ctypes.CDLL(None).prctl(22, 2, ctypes.byref(prog), 0, 0) != 0:
    raise SystemExit("seccomp")`

// owned has a file that signals its process in the name of root.
const owned = `
import fcntl, os
r, w = os.pipe()
os.close(w)
os.set_inheritable(r, True)
fcntl.fcntl(r, fcntl.F_SETOWN, os.getpid())`

// An excess is an attack: somebody who is kept to something has a process restored that is not.
type excess struct {
	rule           ceiling.Rule
	caller, victim []string // commands before the programs; the last of them drops rights
	// more reports whether the restored process has more than the caller; with nil it is asked for its secure bits.
	more func(victim, caller proc.Dir) (bool, error)
}

func status(more func(v, c proc.Status) bool) func(victim, caller proc.Dir) (bool, error) {
	return func(victim, caller proc.Dir) (bool, error) {
		v, err := victim.Status()
		if err != nil {
			return false, err
		}
		c, err := caller.Status()
		return err == nil && more(v, c), err
	}
}

func differs[T comparable](get func(proc.Dir) (T, error)) func(victim, caller proc.Dir) (bool, error) {
	return func(victim, caller proc.Dir) (bool, error) {
		v, err := get(victim)
		if err != nil {
			return false, err
		}
		c, err := get(caller)
		return err == nil && v != c, err
	}
}

func stat(d proc.Dir) (proc.Stat, error) { return d.Stat() }

// excesses are one attack for each rule but that on labels: it takes a security module.
func excesses(t *testing.T) []excess {
	user := drop(mallory)
	join := func(a, b []string) []string { return append(append([]string{}, a...), b...) }
	return []excess{
		{ceiling.IDs, user, drop(victor), status(func(v, c proc.Status) bool { return v.UID.Real == victor && v.GID.Real == victor })},
		{ceiling.Capabilities, user, drop(mallory, "--inh-caps", "+net_raw", "--ambient-caps", "+net_raw"),
			status(func(v, c proc.Status) bool { return v.CapEff&^c.CapPrm != 0 })},
		{ceiling.Bounding, drop(mallory, "--bounding-set", "-net_raw"), user, status(func(v, c proc.Status) bool { return v.CapBnd&^c.CapBnd != 0 })},
		{ceiling.SecureBits, user, drop(mallory, "--securebits", "+noroot"), nil},
		{ceiling.NoNewPrivs, drop(mallory, "--no-new-privs"), user, status(func(v, c proc.Status) bool { return c.NoNewPrivs && !v.NoNewPrivs })},
		{ceiling.Seccomp, join(pythonFirst(confined), user), user, status(func(v, c proc.Status) bool { return c.Seccomp != 0 && v.Seccomp == 0 })},
		{ceiling.Limits, join(shellFirst("ulimit -n 64"), user), user, func(victim, caller proc.Dir) (bool, error) {
			v, err := victim.Limits()
			if err != nil {
				return false, err
			}
			c, err := caller.Limits()
			return v[unix.RLIMIT_NOFILE].Hard > c[unix.RLIMIT_NOFILE].Hard, err
		}},
		{ceiling.Cgroup, join(shellFirst("echo $$ > "+testkit.Cgroup(t)+"/cgroup.procs"), user), user, differs(func(d proc.Dir) (string, error) {
			groups, err := d.Cgroup()
			return fmt.Sprint(groups), err
		})},
		{ceiling.Namespaces, join([]string{"/usr/bin/unshare", "--net", "--"}, user), user, differs(func(d proc.Dir) (proc.Namespace, error) { return d.NS("net") })},
		{ceiling.Root, rooted(t), user, differs(func(d proc.Dir) (string, error) { return d.Link("root") })},
		{ceiling.RealTime, user, join([]string{"/usr/bin/chrt", "-f", "1"}, user), differs(func(d proc.Dir) (uint32, error) { s, err := stat(d); return s.Policy, err })},
		{ceiling.Nice, join([]string{"/usr/bin/nice", "-n", "5"}, user), user, differs(func(d proc.Dir) (int, error) { s, err := stat(d); return s.Nice, err })},
		{ceiling.OOMScore, join(shellFirst("echo 500 > /proc/self/oom_score_adj"), user), user, differs(func(d proc.Dir) (int, error) { return d.OOMScoreAdj() })},
		{ceiling.Owners, user, join(pythonFirst(owned), user), ownerIsRoot},
		{ceiling.Ghosts, user, join(shellFirst("umask 077; echo x > x; chmod 4755 x; exec 9<x; rm x"), user), func(victim, _ proc.Dir) (bool, error) {
			var st unix.Stat_t
			err := unix.Stat(filepath.Join("/proc", filepath.Base(victim.String()), "fd/9"), &st)
			return st.Uid == 0 && st.Mode&unix.S_ISUID != 0, err
		}},
		{ceiling.LoginUID, join(shellFirst("echo 61500 > /proc/self/loginuid"), user), user, differs(func(d proc.Dir) (uint32, error) { return d.LoginUID() })},
	}
}

// rooted is a command that has a root directory of its own, with a program in it.
func rooted(t *testing.T) []string {
	t.Helper()
	dir := testkit.SharedDir(t)
	program, err := os.ReadFile(testkit.BusyboxPath)
	if err != nil {
		t.Fatal(err)
	}
	if err := testkit.WriteProgram(filepath.Join(dir, "busybox"), program); err != nil {
		t.Fatal(err)
	}
	return []string{testkit.PythonPath, "-c", fmt.Sprintf("import os\nos.chroot(%q); os.chdir('/'); os.setgroups([]); os.setresgid(%d, %[2]d, %[2]d); os.setresuid(%[2]d, %[2]d, %[2]d)\n"+
		"os.execv('/busybox', ['busybox', 'sh', '-c', 'echo ready; exec /busybox sleep 1000'])", dir, mallory)}
}

// askable is a program that says its secure bits when it is asked: the kernel tells nobody else.
const askable = `
import ctypes, signal
asked = {signal.SIGUSR2}
signal.pthread_sigmask(signal.SIG_BLOCK, asked)
print("ready", flush=True)
while True:
    signal.sigwait(asked)
    print(ctypes.CDLL(None).prctl(27, 0, 0, 0, 0), flush=True)`

// ownerIsRoot looks whether the file of owned signals in the name of root.
func ownerIsRoot(victim, _ proc.Dir) (bool, error) {
	pid, err := strconv.Atoi(filepath.Base(victim.String()))
	if err != nil {
		return false, err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(pidfd)
	fds, err := victim.FDs()
	if err != nil {
		return false, err
	}
	for _, fd := range fds {
		own, err := unix.PidfdGetfd(pidfd, fd, 0)
		if err != nil {
			return false, err
		}
		owner, err := New().kernel.FileOwner(own)
		unix.Close(own)
		if err == nil && owner.PID == pid && owner.UID == 0 {
			return true, nil
		}
	}
	return false, nil
}

// Each rule has an attack: with the rule nothing is restored, and the rule is named; without it the restored process has more
// than whoever asked for it.
func TestCeiling(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.Python, testkit.VictimProgram("counter"), testkit.Program("setpriv"), testkit.Program("chrt"), testkit.Program("unshare"))
	for _, attack := range excesses(t) {
		t.Run(string(attack.rule), func(t *testing.T) { attack.try(t) })
	}
}

func (a *excess) try(t *testing.T) {
	program := []string{filepath.Join(testkit.SourceRoot(), "bin", "victims", "counter")}
	if a.more == nil {
		program = []string{testkit.PythonPath, "-c", askable}
	}
	victim := startAs(t, append(a.victim, program...))
	images := testkit.SharedDir(t)
	if err := dumpTo(t, New(), images, victim.Pid, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := victim.Wait(); err != nil {
		t.Fatal(err)
	}
	caller := startAs(t, append(a.caller, "/bin/sh", "-c", "echo ready; exec sleep 1000"))
	defer caller.Kill()
	pidfd, err := unix.PidfdOpen(caller.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	held := os.NewFile(uintptr(pidfd), "caller")
	defer held.Close()
	e := &onBehalf{New(), criu.Caller{PID: caller.Pid, UID: mallory, GID: mallory, PIDFD: held}}
	restore := func() error {
		_, err := criu.New(e).Restore(t.Context(), criu.RestoreOptions{ImagesDir: images, LogFile: "restore.log"})
		return err
	}
	err = restore()
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "more than whoever asks for it") {
		t.Fatalf("with the rule: %v", err)
	}
	t.Log(err)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", victim.Pid)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("with the rule there is a process: %v", err)
	}
	e.Engine.without = []ceiling.Rule{a.rule}
	if err := restore(); err != nil {
		t.Fatalf("without the rule: %v", err)
	}
	victim.Restored()
	defer victim.Kill()
	if a.more == nil {
		if bits := victim.Ask(); bits == "0" {
			t.Error("without the rule the process has no secure bits")
		}
		return
	}
	root := proc.New(os.DirFS("/proc"))
	if more, err := a.more(root.Process(victim.Pid), root.Process(caller.Pid)); err != nil || !more {
		t.Errorf("without the rule the process has nothing more: %v", err)
	}
}

// startAs starts a victim that drops rights by itself.
func startAs(t *testing.T, argv []string) *testkit.Victim {
	t.Helper()
	dir := testkit.SharedDir(t)
	output := filepath.Join(dir, filepath.Base(argv[0])+".out")
	if err := os.WriteFile(output, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(output, 0o666); err != nil {
		t.Fatal(err)
	}
	return testkit.VictimSpec{Name: argv[0], Args: argv[1:], Dir: dir, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}.Start(t)
}
