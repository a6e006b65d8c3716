package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"stasis.example/internal/testkit"
)

// TestCrun has crun checkpoint and restore a container that counts, through our library: Debian stable's crun and the
// newest that Debian has.
func TestCrun(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.NoRaceDetector, testkit.Busybox, testkit.Program("unshare"), testkit.Program("patchelf"))
	criu, lib := testkit.CRIUPath(t), library(t)
	for _, prefix := range []string{"criu-trixie", "criu"} {
		t.Run(prefix, func(t *testing.T) {
			dir := testkit.DiskDir(t)
			crun := crunWith(t, dir, prefix, lib)
			bundle(t, filepath.Join(dir, "bundle"), crun)

			cmd := with(command(t, "unshare", "-m", "--propagation", "private", "sh", "-eu", "testdata/crun.sh", crun, dir),
				"PATH="+filepath.Dir(criu)+":"+os.Getenv("PATH"), "LD_DEBUG=files", "LD_DEBUG_OUTPUT="+filepath.Join(dir, "ld"))
			out := run(t, cmd)
			counts := map[string]int{}
			for line := range strings.Lines(out) {
				if name, n, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
					counts[name], _ = strconv.Atoi(n)
				}
			}
			for _, step := range [][2]string{{"start", "running"}, {"running", "gone"}, {"restored", "on"}} {
				if counts[step[0]] <= 0 || counts[step[1]] <= counts[step[0]] {
					t.Errorf("the counter went from %d (%s) to %d (%s)", counts[step[0]], step[0], counts[step[1]], step[1])
				}
			}
			if counts["restored"] < counts["gone"] || counts["restored"] > counts["gone"]+20 {
				t.Errorf("the counter was %d at the checkpoint and %d after the restore", counts["gone"], counts["restored"])
			}

			// Each of the three commands loaded our library, and unloaded it.
			logs, err := filepath.Glob(filepath.Join(dir, "ld.*"))
			must(t, err)
			loaded, unloaded := 0, 0
			for _, log := range logs {
				b, err := os.ReadFile(log)
				must(t, err)
				loaded += strings.Count(string(b), "calling init: "+filepath.Join(lib, "libcriu.so.2"))
				unloaded += strings.Count(string(b), "calling fini: "+filepath.Join(lib, "libcriu.so.2"))
			}
			if loaded != 3 || unloaded != 3 {
				t.Errorf("our library was loaded %d times and unloaded %d times, not 3", loaded, unloaded)
			}
			version := strings.TrimSpace(strings.SplitN(run(t, exec.Command(crun, "--version")), "\n", 2)[0])
			t.Logf("%s: counter %v", version, counts)
		})
	}
}

// crunWith is the crun of a prefix, in a directory, which loads libcriu.so.2 from the first of some directories that has it.
func crunWith(t *testing.T, dir, prefix string, libs ...string) string {
	t.Helper()
	crun := filepath.Join(dir, "crun")
	run(t, exec.Command("cp", testkit.ToolPath(t, prefix, "bin", "crun"), crun))
	path := append(libs, testkit.ToolPath(t, prefix, "lib"))
	run(t, exec.Command("patchelf", "--force-rpath", "--set-rpath", strings.Join(path, ":"), crun))
	return crun
}

// The built-in engine does not dump containers, which have namespaces of their own. crun, for which it stands in for criu, tells why,
// and the container goes on.
func TestCrunIsRefused(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.NoRaceDetector, testkit.Busybox, testkit.Program("unshare"), testkit.Program("patchelf"))
	const why = "the built-in engine does not have the option root yet"
	for _, tc := range []struct {
		name, prefix string
		libs         []string
		quotes       bool // what the log says, where others say where it is
	}{
		{"stable", "criu-trixie", []string{library(t)}, false},
		{"newest", "criu", []string{library(t)}, true},
		{"newest, with its own libcriu", "criu", nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := testkit.DiskDir(t)
			crun := crunWith(t, dir, tc.prefix, tc.libs...)
			bundle(t, filepath.Join(dir, "bundle"), crun)
			must(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
			must(t, os.Symlink(filepath.Join(testkit.SourceRoot(), "bin", "stasis"), filepath.Join(dir, "bin", "criu")))
			out := run(t, with(command(t, "unshare", "-m", "--propagation", "private", "sh", "-eu", "testdata/crun-refused.sh", crun, dir),
				"PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH")))
			if !strings.HasPrefix(out, "running on") {
				t.Errorf("the container: %s", out)
			}
			said, err := os.ReadFile(filepath.Join(dir, "crun.out"))
			must(t, err)
			log := filepath.Join(dir, "images", "dump.log")
			logged, err := os.ReadFile(log)
			must(t, err)
			if tc.quotes && !strings.Contains(string(said), why) || !strings.Contains(string(said), log) || !strings.Contains(string(logged), why) {
				t.Errorf("crun said: %s\nthe log: %s\nwant %q", said, logged, why)
			}
		})
	}
}

// bundle makes a container of busybox that counts in /counter. It has the host's network: CRIU locks a network of the
// container's own by means of iptables, which the machine may not have. It has no masked directories: crun 1.28 does
// not restore those (with Debian's libcriu neither).
func bundle(t *testing.T, dir, crun string) {
	t.Helper()
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(dir, "rootfs", d), 0o755))
	}
	run(t, exec.Command("cp", testkit.BusyboxPath, filepath.Join(dir, "rootfs", "bin", "busybox")))
	spec := exec.Command(crun, "spec")
	spec.Dir = dir
	run(t, spec)

	file := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(file)
	must(t, err)
	var config map[string]any
	must(t, json.Unmarshal(b, &config))
	process := config["process"].(map[string]any)
	process["terminal"] = false
	process["args"] = []string{"/bin/busybox", "sh", "-c",
		"i=0; while :; do i=$((i+1)); echo $i >/counter.new; /bin/busybox mv /counter.new /counter; /bin/busybox usleep 5000; done"}
	config["root"].(map[string]any)["readonly"] = false
	linux := config["linux"].(map[string]any)
	linux["maskedPaths"] = []string{}
	var namespaces []any
	for _, ns := range linux["namespaces"].([]any) {
		if ns.(map[string]any)["type"] != "network" {
			namespaces = append(namespaces, ns)
		}
	}
	linux["namespaces"] = namespaces
	b, err = json.Marshal(config)
	must(t, err)
	must(t, os.WriteFile(file, b, 0o644))
}
