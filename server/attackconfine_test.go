package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu/criutest"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// A client does not shed what its processes inherit by having something restored: the worker, whose child the peer is, has taken it on.
func TestAttackShedWhatIsInherited(t *testing.T) {
	testkit.Need(t, testkit.Program("setpriv"))
	user := strconv.Itoa(mallory)
	status := func(shed func(s *taskStatus) bool) func(int) (bool, error) {
		return func(worker int) (bool, error) {
			st, err := readStatus(worker, worker)
			return err == nil && shed(st), err
		}
	}
	const rawSocket = 1 << unix.CAP_NET_RAW
	for _, tc := range []struct {
		name    string
		before  string   // a command of root's
		setpriv []string // how the client is started
		shed    func(worker int) (bool, error)
	}{
		{"no_new_privs", ":", []string{"--no-new-privs"}, status(func(s *taskStatus) bool { return !s.noNewPrivs })},
		{"the bounding set", ":", []string{"--bounding-set", "-net_raw"}, status(func(s *taskStatus) bool { return s.capBounding&rawSocket != 0 })},
		{"the login uid", "echo " + user + " >/proc/self/loginuid", nil, func(worker int) (bool, error) {
			text, err := os.ReadFile(procPath(worker, "loginuid"))
			return string(text) != user, err
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "the login uid" {
				testkit.Need(t, testkit.Feature("login uids", func() error {
					text, err := os.ReadFile("/proc/self/loginuid")
					if err != nil || string(text) != unsetLogin {
						return testkit.Missing("this process cannot set its own")
					}
					return nil
				}))
			}
			eachWay(t, "confine", func(t *testing.T, off string) (bool, string) {
				shed := make(chan bool, 1)
				_, peer := yes(t, criutest.Script{criutest.Receive(), criutest.Func(func(c *criutest.Conn) error {
					worker, err := c.ClientPID()
					if err != nil {
						return err
					}
					has, err := tc.shed(worker)
					shed <- has
					return err
				}), criutest.Answer()})
				s := startServer(t, peer, off)
				ask := s.clientCommand(attack{Type: rpc.ReqRestore, Images: testkit.UserDir(t, mallory)}, 0)
				args := []string{"-c", tc.before + ` && exec "$0" "$@"`, "setpriv", "--reuid", user, "--regid", user, "--clear-groups"}
				args = append(append(args, tc.setpriv...), "--", "/bin/sh", "-c", `"$0" "$@"; exit`, testProgram(t))
				cmd := as(exec.Command("/bin/sh", append(args, ask.Args[1:]...)...), 0)
				resp := answerTo(t, cmd)
				return resp.Success && <-shed, text(resp)
			})
		})
	}
}

// What a restored process could not be put under keeps a client from having one restored.
func TestAttackShedWhatIsNot(t *testing.T) {
	testkit.Need(t, testkit.Program("setpriv"))
	user := strconv.Itoa(mallory)
	for _, tc := range []struct {
		name    string
		attack  attack
		setpriv []string
	}{
		{"a seccomp filter", attack{Filtered: true}, nil},
		// Who has connected by then has it no more when it asks, or its descriptors could not be taken.
		{"another root directory", attack{Chroot: "/proc"}, []string{"--inh-caps", "+sys_chroot", "--ambient-caps", "+sys_chroot"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eachWay(t, "confine", func(t *testing.T, off string) (bool, string) {
				p, peer := yes(t)
				s := startServer(t, peer, off)
				a := tc.attack
				a.Type, a.Images = rpc.ReqRestore, testkit.UserDir(t, mallory)
				ask := s.clientCommand(a, 0)
				args := append([]string{"--reuid", user, "--regid", user, "--clear-groups"}, tc.setpriv...)
				cmd := as(exec.Command("setpriv", append(append(args, "--", testProgram(t)), ask.Args[1:]...)...), 0)
				resp := answerTo(t, cmd)
				return resp.Success && reached(p, rpc.ReqRestore), text(resp)
			})
		})
	}
}

// A client does not get out of its cgroup by having something restored: where the worker could not be put into it, as with
// cgroups of version 1, there is no restore.
func TestAttackLeaveCgroup(t *testing.T) {
	testkit.Need(t, testkit.Program("setpriv"))
	eachWay(t, "confine", func(t *testing.T, off string) (bool, string) {
		group := testkit.Cgroup(t)
		outside := make(chan bool, 1)
		_, peer := yes(t, criutest.Script{criutest.Receive(), criutest.Func(func(c *criutest.Conn) error {
			worker, err := c.ClientPID()
			if err != nil {
				return err
			}
			groups, err := os.ReadFile(procPath(worker, "cgroup"))
			outside <- !strings.Contains(string(groups), filepath.Base(group))
			return err
		}), criutest.Answer()})
		s := startServer(t, peer, off)
		ask := s.clientCommand(attack{Type: rpc.ReqRestore, Images: testkit.UserDir(t, mallory)}, 0)
		user := strconv.Itoa(mallory)
		cmd := as(exec.Command("/bin/sh", append([]string{"-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, group,
			"setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--", "/bin/sh", "-c", `"$0" "$@"; exit`, testProgram(t)}, ask.Args[1:]...)...), 0)
		resp := answerTo(t, cmd)
		return resp.Success && <-outside, text(resp)
	})
}

// A client that is kept low does not get rid of that by having something restored.
func TestAttackRaiseLimits(t *testing.T) {
	testkit.Need(t, testkit.CRIU)
	for _, tc := range []struct {
		name, under string // a command that keeps the client low
		raised      func(pid int) (bool, error)
	}{
		{"a hard limit", "ulimit -H -c 0", func(pid int) (bool, error) {
			limits, err := os.ReadFile(procPath(pid, "limits"))
			_, line, _ := strings.Cut(string(limits), "Max core file size")
			fields := strings.Fields(line) // soft, hard, unit
			return len(fields) < 2 || fields[1] != "0", err
		}},
		{"nice", "renice -n 19 $$ >/dev/null", func(pid int) (bool, error) {
			twentyMinus, err := unix.Getpriority(unix.PRIO_PROCESS, pid)
			return twentyMinus > 20-19, err
		}},
		{"the OOM score", "echo 500 >/proc/$$/oom_score_adj", func(pid int) (bool, error) {
			n, err := readNumber(procPath(pid, "oom_score_adj"))
			return n < 500, err
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eachWay(t, "confine", func(t *testing.T, off string) (bool, string) {
				s := startServer(t, testkit.CRIUPath(t), off)
				images := testkit.UserDir(t, mallory)
				target := restorableVictim(t, mallory)
				if resp := s.mustAsk(attack{Type: rpc.ReqDump, PID: int32(target.Pid), Images: images}, mallory); !resp.Success {
					t.Fatalf("the dump failed: %s", text(resp))
				}
				if _, err := target.Wait(); err != nil {
					t.Fatal(err)
				}
				ask := s.clientCommand(attack{Type: rpc.ReqRestore, Images: images, Opts: map[string]any{"LogFile": "restore.log"}}, mallory)
				cmd := as(exec.Command("/bin/sh", append([]string{"-c", tc.under + `; "$0" "$@"; exit`, testProgram(t)}, ask.Args[1:]...)...), mallory)
				resp := answerTo(t, cmd)
				if !resp.Success {
					return false, text(resp) // what the peer may not raise it may refuse
				}
				target.Restored()
				raised, err := tc.raised(target.Pid)
				if err != nil {
					t.Fatal(err)
				}
				return raised, "restored"
			})
		})
	}
}

// A client of other namespaces does not get out of them by having something restored.
func TestAttackLeaveNamespaces(t *testing.T) {
	testkit.Need(t, testkit.Program("unshare"), testkit.Program("setpriv"))
	eachWay(t, "confine", func(t *testing.T, off string) (bool, string) {
		p, peer := yes(t)
		s := startServer(t, peer, off)
		a := s.clientCommand(attack{Type: rpc.ReqRestore, Images: testkit.UserDir(t, mallory)}, 0)
		user := strconv.Itoa(mallory)
		cmd := testkit.InNamespaces(t.Context(), t, "setpriv", append([]string{"--reuid", user, "--regid", user, "--clear-groups", "--",
			"/bin/sh", "-c", `"$0" "$@"; exit`, testProgram(t)}, a.Args[1:]...)...)
		resp := answerTo(t, cmd)
		return resp.Success && reached(p, rpc.ReqRestore), text(resp)
	})
}
