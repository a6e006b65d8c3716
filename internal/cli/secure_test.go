package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/testkit"
)

// rulesOff is the variable that names the rules which this test program, as the program itself, goes without.
const rulesOff = "CLI_TEST_RULES_OFF"

// withoutRules is all rules but those named, with commas between.
func withoutRules(off string) *fileRules {
	rules := allFileRules()
	for name := range strings.SplitSeq(off, ",") {
		switch name {
		case "":
		case "noSetID":
			rules.noSetID = false
		case "noOtherCaps":
			rules.noOtherCaps = false
		case "ownVariables":
			rules.ownVariables = false
		default:
			panic("no rule " + name)
		}
	}
	return &rules
}

// Users that nobody has.
const (
	mallory = 61510
	victor  = 61511
)

// A setIDProgram is this program in a file of root's that gives rights to whoever executes it, and a user who does.
type setIDProgram struct {
	t    *testing.T
	path string
	home string // a directory of the user's
	off  string
}

// run executes the program as mallory, with variables.
func (p *setIDProgram) run(env []string, args ...string) string {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), p.path, args...)
	cmd.Dir = p.home
	cmd.Env = append([]string{rulesOff + "=" + p.off, "PATH=" + safePath, "HOME=" + p.home}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: mallory, Gid: mallory}, Setsid: true}
	output, err := cmd.CombinedOutput()
	return fmt.Sprintf("%v: %s", err, output)
}

// stranger makes the name criu in the user's directory lead to touch(1), which makes files called as its arguments.
func (p *setIDProgram) stranger() string {
	p.t.Helper()
	path := filepath.Join(p.home, "criu")
	if err := os.Symlink("/usr/bin/touch", path); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// ranAsRoot reports whether the stranger has run as root.
func (p *setIDProgram) ranAsRoot() bool {
	info, err := os.Stat(filepath.Join(p.home, "swrk"))
	return err == nil && info.Sys().(*syscall.Stat_t).Uid == 0
}

// secretOf is a file that only its owner can read, with a line that is no option.
func secretOf(t *testing.T, uid int) string {
	t.Helper()
	path := filepath.Join(testkit.UserDir(t, uid), "secret")
	if err := os.WriteFile(path, []byte("hunter2 hunter3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, uid); err != nil {
		t.Fatal(err)
	}
	return path
}

// attackFile makes each attack with all rules, when it must fail, and without one, when it must succeed: else it would show nothing
// about the rule.
func attackFile(t *testing.T, rule string, program func(t *testing.T) string, attack func(t *testing.T, p *setIDProgram) (succeeded bool, detail string)) {
	t.Helper()
	testkit.Need(t, testkit.Root, testkit.Feature("set-user-ID programs in /tmp", func() error {
		var st unix.Statfs_t
		if err := unix.Statfs("/tmp", &st); err != nil || st.Flags&unix.ST_NOSUID != 0 {
			return testkit.Missing("/tmp is mounted nosuid")
		}
		return nil
	}))
	for _, off := range []string{"", rule} {
		name := "with the rule"
		if off != "" {
			name = "without the rule"
		}
		t.Run(name, func(t *testing.T) {
			succeeded, detail := attack(t, &setIDProgram{t: t, path: program(t), home: testkit.UserDir(t, mallory), off: off})
			if succeeded != (off != "") {
				t.Errorf("the attack succeeded: %v; %s", succeeded, detail)
			}
		})
	}
}

// setUserID is this program as one that is another user whoever executes it.
func setUserID(uid int) func(t *testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		path := filepath.Join(testkit.SharedDir(t), "stasis")
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		if err := testkit.WriteProgram(path, self); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chown(path, uid, uid), os.Chmod(path, 0o755|os.ModeSetuid)); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

// withCapability is this program with a capability for whoever executes it.
func withCapability(capability int) func(t *testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		path := testkit.ProgramWithCapability(t, capability)
		named := filepath.Join(filepath.Dir(path), "stasis")
		if err := os.Rename(path, named); err != nil {
			t.Fatal(err)
		}
		return named
	}
}

// What is wrong with a configuration file is told with its text, which is not everybody's.
func TestAttackConfigFile(t *testing.T) {
	read := func(t *testing.T, p *setIDProgram) (bool, string) {
		said := p.run([]string{configVariable + "=" + secretOf(t, victor)}, "check")
		return strings.Contains(said, "hunter2"), said
	}
	t.Run("set-user-ID", func(t *testing.T) { attackFile(t, "noSetID,ownVariables", setUserID(victor), read) })
	t.Run("capability", func(t *testing.T) {
		attackFile(t, "noOtherCaps,ownVariables", withCapability(unix.CAP_DAC_READ_SEARCH), read)
	})
	t.Run("home directory", func(t *testing.T) {
		attackFile(t, "noSetID,ownVariables", setUserID(victor), func(t *testing.T, p *setIDProgram) (bool, string) {
			if err := os.Mkdir(filepath.Join(p.home, ".criu"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(secretOf(t, victor), filepath.Join(p.home, userConfig)); err != nil {
				t.Fatal(err)
			}
			said := p.run(nil, "check")
			return strings.Contains(said, "hunter2"), said
		})
	})
	t.Run("option", func(t *testing.T) {
		attackFile(t, "noSetID", setUserID(victor), func(t *testing.T, p *setIDProgram) (bool, string) {
			said := p.run(nil, "check", "--config", secretOf(t, victor))
			return strings.Contains(said, "hunter2"), said
		})
	})
}

// What the program executes is found by variables. A program of root's has all capabilities, so two rules are in the way.
func TestAttackProgram(t *testing.T) {
	for name, how := range map[string]func(stranger string) (env, args []string){
		"PATH": func(s string) ([]string, []string) {
			return []string{"PATH=" + filepath.Dir(s)}, []string{"--engine", "criu"}
		},
		"variable": func(s string) ([]string, []string) { return []string{engineVariable + "=criu:" + s}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			attackFile(t, "noSetID,noOtherCaps,ownVariables", setUserID(0), func(t *testing.T, p *setIDProgram) (bool, string) {
				env, args := how(p.stranger())
				said := p.run(env, append([]string{"version"}, args...)...)
				return p.ranAsRoot(), said
			})
		})
	}
}

// Somebody else's process is dumped, and its memory read from the images.
func TestAttackDump(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	dump := func(t *testing.T, p *setIDProgram) (bool, string) {
		v := testkit.VictimSpec{Name: "counter", UID: victor}.Start(t)
		said := p.run(nil, "dump", "-t", fmt.Sprint(v.Pid), "-D", p.home, "--leave-running")
		v.MustVerify()
		pages, err := os.Stat(filepath.Join(p.home, "pages-1.img"))
		return err == nil && pages.Size() > 0, said
	}
	attackFile(t, "noSetID,noOtherCaps", setUserID(0), dump)
}

// A log is written where only somebody else may write.
func TestAttackLog(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	attackFile(t, "noOtherCaps", withCapability(unix.CAP_DAC_OVERRIDE), func(t *testing.T, p *setIDProgram) (bool, string) {
		dir := filepath.Dir(secretOf(t, victor))
		said := p.run(nil, "dump", "-t", fmt.Sprint(os.Getpid()), "-D", dir, "-o", "secret")
		text, err := os.ReadFile(filepath.Join(dir, "secret"))
		return err != nil || !bytes.Contains(text, []byte("hunter2")), said
	})
}

// With the one capability that the program may have from its file, whoever executes it reads and executes by variables what is that
// user's own. They are not heeded all the same, as in any program that has rights of its own; the command line is.
func TestVariablesOfProgramWithCapability(t *testing.T) {
	attackFile(t, "ownVariables", withCapability(unix.CAP_CHECKPOINT_RESTORE), func(t *testing.T, p *setIDProgram) (bool, string) {
		said := p.run([]string{engineVariable + "=nonsense"}, "version")
		return strings.Contains(said, "nonsense"), said
	})
}

// A program that is started without the first three descriptors has them, or what it opens next would have their numbers, and what
// it says would be written there.
func TestFirstDescriptors(t *testing.T) {
	testkit.Need(t, testkit.Root)
	stasis, dir := buildStasis(t), t.TempDir()
	cmd := exec.Command("/bin/sh", "-c", `exec "$0" "$@" 0<&- 1>&- 2>&-`, stasis, "service", "-W", dir, "--address", "socket", "--pidfile", "pid")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	testkit.WaitFor(t, "the service", func() bool {
		_, err := os.Stat(filepath.Join(dir, "pid"))
		return err == nil
	})
	var links []string
	for fd := range 3 {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", cmd.Process.Pid, fd))
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, link)
	}
	if !slices.Equal(links, []string{os.DevNull, os.DevNull, os.DevNull}) {
		t.Errorf("the first descriptors are %v", links)
	}
}
