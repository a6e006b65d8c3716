package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/testkit"
)

// outcome is what a command line leaves behind that others may rest on.
type outcome struct {
	status int
	stdout string // "" where it is not compared
	files  []string
	runs   bool // the victim runs on
}

// dropIn runs the same command lines with criu and with this program called criu, each with a victim and a directory
// of its own, and compares what comes of them.
type dropIn struct {
	t      *testing.T
	criu   string // the real one
	victim *testkit.Victim
	dir    string
	env    []string
}

func newDropIn(t *testing.T, c contender) *dropIn {
	d := &dropIn{t: t, criu: c.program, dir: t.TempDir()}
	d.env = append(os.Environ(), "HOME="+d.dir, "STASIS_ENGINE="+c.engine)
	return d
}

// contender is a program called criu, and the engine that it is to use.
type contender struct{ name, program, engine string }

// contenders are the real one, this program with the real one behind it, and this program alone.
func contenders(t *testing.T) []contender {
	real, here := testkit.CRIUPath(t), filepath.Join(programs(t), "criu")
	return []contender{{"criu", real, ""}, {"here, with criu", here, "criu:" + real}, {"here, built in", here, "builtin"}}
}

// withoutImages leaves out the images: which ones there are, and their numbers, is not laid down. Statistics are the owner's
// alone to read where the built-in engine writes them.
func (o outcome) withoutImages() outcome {
	o.files = slices.DeleteFunc(slices.Clone(o.files), func(f string) bool { return strings.HasSuffix(f, ".img") })
	for i, f := range o.files {
		if strings.HasSuffix(f, "stats-dump") {
			_, o.files[i], _ = strings.Cut(f, " ")
		}
	}
	return o
}

// run runs a command line in the directory. VICTIM in it is the victim's pid.
func (d *dropIn) run(args ...string) (status int, stdout string) {
	d.t.Helper()
	words := slices.Clone(args)
	for i := range words {
		if d.victim != nil {
			words[i] = strings.ReplaceAll(words[i], "VICTIM", fmt.Sprint(d.victim.Pid))
		}
	}
	cmd := exec.Command(d.criu, words...)
	cmd.Dir, cmd.Env = d.dir, d.env
	cmd.Stderr = nil
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode(), string(out)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return 0, string(out)
}

func (d *dropIn) outcome(status int, stdout string) outcome {
	d.t.Helper()
	o := outcome{status: status, stdout: stdout}
	err := filepath.Walk(d.dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, d.dir+"/")
		if strings.HasSuffix(name, "stats-restore") {
			return nil // criu writes its pidfile before it, and gives up if it cannot; we are told to write ours after it
		}
		if d.victim != nil {
			name = strings.ReplaceAll(name, fmt.Sprint(d.victim.Pid), "VICTIM")
		}
		entry := fmt.Sprintf("%v %s", info.Mode(), name)
		switch {
		case strings.HasSuffix(name, ".pid"):
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			entry += " holds " + strings.ReplaceAll(fmt.Sprintf("%q", text), fmt.Sprint(d.victim.Pid), "VICTIM")
		case strings.HasSuffix(name, "empty.log"):
			entry += fmt.Sprintf(" %d bytes", info.Size())
		}
		o.files = append(o.files, entry)
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	if d.victim != nil {
		o.runs = !d.victim.Gone()
	}
	return o
}

func (o outcome) String() string {
	return fmt.Sprintf("status %d, victim runs: %v, stdout %q, files:\n  %s", o.status, o.runs, o.stdout, strings.Join(o.files, "\n  "))
}

// step is one command line, and whether what it prints is compared.
type step struct {
	args   string
	stdout bool
}

// TestDropIn: called criu, the program ends with the same status and leaves the same files as criu does.
func TestDropIn(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
	for _, test := range []struct {
		name   string
		victim bool
		setup  string // a shell command, in the directory
		steps  []step
		criu   bool // the built-in engine says something else, and is right
	}{
		{name: "check", steps: []step{{"check", true}}},
		{name: "check with a log that stays empty", steps: []step{{"check -v0 -o empty.log", true}}},
		{name: "check with a log elsewhere", setup: "mkdir w", steps: []step{{"check -W w -o x.log", true}}},
		{name: "version", steps: []step{{"--version", true}, {"-V", true}, {"check --version", true}}},
		{name: "one feature", steps: []step{{"check --feature uffd", true}, {"check --feature nosuch", true}}, criu: true},
		{name: "a feature of all", steps: []step{{"check --feature mnt_id", true}, {"check --feature mnt_id --feature nosuch", false}}},
		{name: "no pid", steps: []step{{"dump -o dump.log", false}}},
		{name: "bad pids", steps: []step{{"dump -t 0", false}, {"dump -t abc", false}}},
		{name: "a pid that is gone", steps: []step{{"dump -t 4194304 -o dump.log", false}}},
		{name: "no directory", steps: []step{{"dump -t 1 -D missing", false}, {"restore -D missing", false}, {"dump -t 1 -W missing", false}}},
		{name: "nothing to restore", setup: "mkdir d", steps: []step{{"restore -d -D d -o r.log --pidfile r.pid", false}}},
		{name: "mistakes", steps: []step{{"", false}, {"frobnicate", false}, {"dump x -t 1", false}, {"restore --nosuch", false}, {"restore --e", false},
			{"restore -S", false}, {"restore --exec-cmd", false}, {"dump -t 1 --manage-cgroups=x", false}, {"cpuinfo", false}, {"cpuinfo x", false}, {"restore -t", false}}},
		{name: "cpuinfo", steps: []step{{"cpuinfo dump", true}, {"cpuinfo check", true}}},
		{name: "cpuinfo of nothing", steps: []step{{"cpuinfo check -o c.log", true}}},
		{name: "dump and restore", victim: true, setup: "mkdir d", steps: []step{
			{"dump -t VICTIM -D d -o dump.log", true}, {"restore -d -D d -o restore.log --pidfile it.pid", true}}},
		{name: "letters glued together", victim: true, setup: "mkdir d", steps: []step{
			{"-v4 -odump.log -tVICTIM -Dd dump", true}, {"restore -dDd -vvvv -o restore.log", true}}},
		{name: "shortened names", victim: true, setup: "mkdir d", steps: []step{
			{"dump --tre VICTIM --im d --log-f x.log --leave-r", true}}},
		{name: "a work directory", victim: true, setup: "mkdir d w", steps: []step{
			{"dump -t VICTIM -D d -W w -o dump.log", true}, {"restore -d -D d -W w -o restore.log --pidfile it.pid", true}}},
		{name: "silence in one dash", victim: true, setup: "mkdir d", steps: []step{{"dump -t VICTIM -D d -verbosity=0 -o empty.log -R", true}}},
		{name: "left running, then stopped", victim: true, setup: "mkdir d e", steps: []step{
			{"dump -t VICTIM -D d -R -o dump.log", true}, {"dump -t VICTIM -D e -R -s -o dump.log", true}}},
		{name: "a log named by its path", victim: true, setup: "mkdir d l", steps: []step{{"dump -t VICTIM -D d -o ../l/dump.log -R", true}}},
		{name: "the pid is in use", victim: true, setup: "mkdir d", steps: []step{
			{"dump -t VICTIM -D d -R -o dump.log", true}, {"restore -d -D d -o restore.log --pidfile it.pid", true}}},
		{name: "a pidfile that is there", victim: true, setup: "mkdir d && echo x > d/old", steps: []step{
			{"dump -t VICTIM -D d -o dump.log", true}, {"restore -d -D d -o restore.log --pidfile old", true}}},
		{name: "a configuration file", victim: true, setup: "mkdir d && printf 'images-dir d\nlog-file \"conf.log\" # x\nleave-running\n' > c.conf", steps: []step{
			{"--config c.conf dump -t VICTIM", true}, {"dump -t VICTIM -D d --config=missing.conf -R", true}}},
		{name: "the user's configuration file", victim: true, setup: "mkdir -p d .criu && printf 'images-dir d\nlog-file conf.log\nleave-running\n' > .criu/default.conf", steps: []step{
			{"dump -t VICTIM", true}, {"dump -t VICTIM --no-default-config -D d -o cli.log", true}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := contenders(t)
			if test.criu {
				all = all[:2]
			}
			outcomes := make([][]outcome, len(all))
			for i, c := range all {
				d := newDropIn(t, c)
				if test.setup != "" {
					if out, err := execIn(d.dir, test.setup); err != nil {
						t.Fatalf("%s: %v, %s", test.setup, err, out)
					}
				}
				if test.victim {
					d.victim = testkit.StartVictim(t, "counter")
				}
				for _, s := range test.steps {
					status, stdout := d.run(strings.Fields(s.args)...)
					if !s.stdout {
						stdout = ""
					}
					if d.victim != nil && d.victim.Gone() {
						d.victim.Wait()
						switch {
						case status != 0: // what a failed restore has made is killed, and may take a moment to be gone
							testkit.WaitFor(t, "the victim to be gone", func() bool { return unix.Kill(d.victim.Pid, 0) != nil })
						case unix.Kill(d.victim.Pid, 0) == nil:
							d.victim.Restored()
						}
					}
					outcomes[i] = append(outcomes[i], d.outcome(status, stdout))
				}
				if d.victim != nil {
					d.victim.Kill()
				}
			}
			for i, s := range test.steps {
				for c := range all[1:] {
					theirs, ours := outcomes[0][i], outcomes[c+1][i]
					if all[c+1].engine == "builtin" {
						theirs, ours = theirs.withoutImages(), ours.withoutImages()
					}
					if theirs.String() != ours.String() {
						t.Errorf("criu %s\n criu: %s\n %s: %s", s.args, theirs, all[c+1].name, ours)
					}
				}
			}
		})
	}
}

func execIn(dir, command string) (string, error) {
	cmd := exec.Command("sh", "-ec", command)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestDropInScripts: action scripts see the same stages with the same variables.
func TestDropInScripts(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
	var seen []string
	for _, c := range contenders(t) {
		program, d := c.name, newDropIn(t, c)
		for _, name := range []string{"one", "two"} {
			script := fmt.Sprintf("#!/bin/sh\necho %s $CRTOOLS_SCRIPT_ACTION pid=$CRTOOLS_INIT_PID images=$([ $CRTOOLS_SCRIPT_ACTION = post-resume ] || ls $CRTOOLS_IMAGE_DIR/pstree.img | wc -l) in $PWD, $# arguments >> %s/seen\necho printed by $0\n", name, d.dir)
			if err := testkit.WriteProgram(filepath.Join(d.dir, name), []byte(script)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(filepath.Join(d.dir, "d"), 0o700); err != nil {
			t.Fatal(err)
		}
		d.victim = testkit.StartVictim(t, "counter")
		scripts := []string{"--action-script", filepath.Join(d.dir, "one"), "--action-script", filepath.Join(d.dir, "two")}
		for _, args := range []string{"dump -t VICTIM -D d -o dump.log", "restore -d -D d -o restore.log"} {
			if status, _ := d.run(append(strings.Fields(args), scripts...)...); status != 0 {
				t.Fatalf("%s %s: status %d", program, args, status)
			}
			if args[0] == 'd' {
				d.victim.Wait()
			}
		}
		d.victim.Restored()
		d.victim.Kill()
		text, err := os.ReadFile(filepath.Join(d.dir, "seen"))
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, strings.NewReplacer(d.dir, "DIR", fmt.Sprint(d.victim.Pid), "VICTIM").Replace(string(text)))
		for _, log := range []string{"dump.log", "restore.log"} {
			text, err := os.ReadFile(filepath.Join(d.dir, "d", log))
			if err != nil || !strings.Contains(string(text), "printed by "+d.dir+"/two") {
				t.Errorf("%s: what the scripts printed is not in %s (%v)", program, log, err)
			}
		}
	}
	for i, saw := range seen {
		if saw != seen[0] || saw == "" {
			t.Errorf("the scripts of criu saw\n%s\nthose of %s\n%s", seen[0], contenders(t)[i].name, saw)
		}
	}
}

// TestDropInScriptThatFails: a script that fails ends an operation where it still can be undone, with criu's status, and
// the victim lives either way.
func TestDropInScriptThatFails(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
	for _, stage := range []string{"pre-dump", "post-dump", "pre-restore", "pre-resume", "post-resume"} {
		t.Run(stage, func(t *testing.T) {
			all := contenders(t)
			statuses := make([][]int, len(all))
			for i, c := range all {
				program, d := c.name, newDropIn(t, c)
				script := filepath.Join(d.dir, "script")
				if err := testkit.WriteProgram(script, []byte("#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != "+stage+" ]\n")); err != nil {
					t.Fatal(err)
				}
				d.victim = testkit.StartVictim(t, "counter")
				status, _ := d.run("dump", "-t", "VICTIM", "-o", "dump.log", "--action-script", script)
				statuses[i] = append(statuses[i], status)
				if status == 0 {
					d.victim.Wait()
					status, _ = d.run("restore", "-d", "-o", "restore.log", "--action-script", script)
					statuses[i] = append(statuses[i], status)
					if status != 0 {
						if status, _ := d.run("restore", "-d", "-o", "restore.log"); status != 0 {
							t.Fatalf("%s: nothing is left to restore: status %d", program, status)
						}
					}
					d.victim.Restored()
				}
				d.victim.MustVerify()
			}
			for i := range all {
				if !slices.Equal(statuses[0], statuses[i]) {
					t.Errorf("criu ends with %v, %s with %v", statuses[0], all[i].name, statuses[i])
				}
			}
		})
	}
}
