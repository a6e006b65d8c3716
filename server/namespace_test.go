package server

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// mustHave checks that a directory has files.
func mustHave(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// mustBeEmpty checks that nothing was written into a directory.
func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("%s has %v, %v; want nothing", dir, entries, err)
	}
}

// inMounts is a user's client in a mount namespace of its own, where a directory has a file system that nobody else sees. What is
// on it when the client has ended is copied to another directory.
func (s *testService) inMounts(a attack, uid uint32, mountpoint, copyTo string, prefix ...string) (*rpc.Resp, error) {
	s.t.Helper()
	user := strconv.Itoa(int(uid))
	script := `mount -t tmpfs -o mode=777 tmpfs "$0" && mkdir -m 777 "$0/images" "$0/work" && to="$1" && shift &&
		from="$0" && "$@" && cp -r "$from/." "$to"`
	args := []string{"--mount", "--propagation", "private", "--", "/bin/sh", "-c", script, mountpoint, copyTo}
	args = append(append(args, prefix...), "setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--", testProgram(s.t))
	cmd := exec.Command("unshare", append(args, s.clientCommand(a, 0).Args[1:]...)...)
	cmd.Dir = "/"
	return outcome(cmd)
}

// A client in a mount namespace of its own hands over directories that only it can see, and they are what is written to: not
// what has their path here.
func TestDirectoriesOfOtherMounts(t *testing.T) {
	eachEngine(t, func(t *testing.T, transport string) {
		testkit.Need(t, testkit.Program("unshare"), testkit.Program("setpriv"))
		s := startServer(t, transport, "")
		v := victimOf(t, mallory)
		here, copied := testkit.SharedDir(t), testkit.SharedDir(t)
		resp, err := s.inMounts(attack{Type: rpc.ReqDump, PID: int32(v.Pid), Images: filepath.Join(here, "images"), Work: filepath.Join(here, "work"),
			Opts: map[string]any{"LeaveRunning": true, "LogFile": "x.log"}}, mallory, here, copied)
		if err != nil || !resp.Success {
			t.Fatalf("%+v, %v: %s", resp, err, text(resp))
		}
		mustHave(t, copied, "images/inventory.img", "images/pages-1.img", "work/x.log")
		mustBeEmpty(t, here)
		v.MustVerify()
	})
}

// A client in a pid namespace of its own names processes by the numbers that they have there, and is told why the engine does not
// dump what has namespaces of its own. Whatever has such a number elsewhere is left alone.
func TestProcessesOfOtherNamespaces(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.Program("unshare"), testkit.Program("setpriv"), testkit.Busybox)
	s := startServer(t, builtin, "")
	v := victimOf(t, mallory)
	user := strconv.Itoa(mallory)
	ask := func(pid int) *rpc.Resp {
		t.Helper()
		a := s.clientCommand(attack{Type: rpc.ReqDump, PID: int32(pid), Images: testkit.UserDir(t, mallory), Opts: map[string]any{"LeaveRunning": true}}, 0)
		// The first child of the shell has the number 2 there, and goes on after the client.
		script := `sleep 1000 & [ $! = 2 ] && "$0" "$@" && state=$(cut -d" " -f3 /proc/2/stat) && case $state in S|R) ;; *) echo "it is $state" >&2; exit 1;; esac`
		cmd := testkit.InNamespaces(t.Context(), t, "setpriv", append([]string{"--reuid", user, "--regid", user, "--clear-groups", "--",
			testkit.BusyboxPath, "sh", "-c", script, testProgram(t)}, a.Args[1:]...)...)
		resp := answerTo(t, cmd)
		return resp
	}
	if resp := ask(2); resp.Success || !strings.Contains(text(resp), "namespace") || strings.Contains(text(resp), "process 2 ") {
		t.Errorf("its own process: %+v, %s; want a refusal that names the namespaces, and the process by its number here", resp, text(resp))
	}
	if resp := ask(v.Pid); resp.Success || resp.CrErrno == nil || *resp.CrErrno != int32(syscall.ESRCH) {
		t.Errorf("a process that it does not see: %+v, %s; want ESRCH", resp, text(resp))
	}
	v.MustVerify()
}

// A path in images_dir is the client's: below its root directory, from its working directory.
func TestImagesDirAsPath(t *testing.T) {
	eachEngine(t, func(t *testing.T, transport string) {
		s := startServer(t, transport, "")
		for _, tc := range []struct {
			name, path string
			chroot     bool
			refused    string
		}{
			{"a whole path", "WHOLE/images", false, ""},
			{"from the working directory", "images", false, ""},
			{"below another root", "/images", true, ""},
			{"not out of it", "/../../images", true, ""},
			{"a link that is followed there", "/link", true, ""},
			{"nothing there", "none", false, "none"},
			{"a file", "/proc/version", false, "not a directory"},
			{"relative below another root", "images", true, "images_dir_fd"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				top, v := t.TempDir(), testkit.StartVictim(t, "counter")
				images := filepath.Join(top, "images")
				if err := errors.Join(os.Mkdir(images, 0o755), os.Symlink("/images", filepath.Join(top, "link"))); err != nil {
					t.Fatal(err)
				}
				a := attack{Type: rpc.ReqDump, PID: int32(v.Pid), Opts: map[string]any{"LeaveRunning": true,
					"ImagesDir": strings.Replace(tc.path, "WHOLE", top, 1)}}
				if tc.chroot {
					a.Chroot = top
				}
				cmd := s.clientCommand(a, 0)
				cmd.Dir = top
				resp, err := outcome(cmd)
				switch {
				case err != nil:
					t.Fatal(err)
				case tc.refused == "" && !resp.Success:
					t.Errorf("%+v: %s", resp, text(resp))
				case tc.refused == "":
					mustHave(t, images, "inventory.img", "pages-1.img")
				case resp.Success || resp.CrErrno == nil || !strings.Contains(text(resp), "images_dir") || !strings.Contains(text(resp), tc.refused):
					t.Errorf("%+v, %s; want a refusal with %q", resp, text(resp), tc.refused)
				default:
					mustBeEmpty(t, images)
				}
				v.MustVerify()
			})
		}
		if _, err := os.Stat("/images"); err == nil {
			t.Error("images went below the service's own root directory")
		}
	})
}
