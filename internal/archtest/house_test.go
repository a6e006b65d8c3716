package archtest

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"stasis.example/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func readThisHouse(t *testing.T) *house {
	t.Helper()
	h, err := readHouse(os.DirFS(testkit.SourceRoot()))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHouse(t *testing.T) {
	h := readThisHouse(t)
	if len(h.packages) < 5 || len(h.table) < 5 || len(h.requires) < 2 {
		t.Fatalf("found %d packages, %d rows, %d requirements: not this house", len(h.packages), len(h.table), len(h.requires))
	}
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			for _, place := range rule.check(h) {
				t.Error(place)
			}
		})
	}
}

// goTool runs the go command at the root of the checkout.
func goTool(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = testkit.SourceRoot()
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s go %s: %v\n%s", strings.Join(env, " "), strings.Join(args, " "), err, &stderr)
	}
	return string(output)
}

// Package criu is what people link to talk to a CRIU, and they count its megabytes.
func TestClientIsLight(t *testing.T) {
	testkit.Need(t, testkit.Program("go"))
	const protobuf = "google.golang.org/protobuf/"
	wire := strings.Fields(goTool(t, nil, "list", "-deps", protobuf+"encoding/protowire"))
	allowed := make(map[string]bool)
	for _, dep := range wire {
		allowed[dep] = true
	}
	deps := strings.Fields(goTool(t, nil, "list", "-deps", "./criu"))
	if len(deps) < 10 {
		t.Fatalf("package criu depends on %q only?", deps)
	}
	for _, dep := range deps {
		if dep == "net" || strings.HasPrefix(dep, protobuf) && !allowed[dep] {
			t.Errorf("package criu depends on %s", dep)
		}
	}
}

// What ARCHITECTURE.md says builds anywhere is built for systems that differ: in their calls, in the size of an int, in
// the order of bytes. The rest is built for the other processor that it should one day run on.
func TestBuildsElsewhere(t *testing.T) {
	testkit.Need(t, testkit.Program("go"))
	h := readThisHouse(t)
	var anywhere, all []string
	for _, p := range h.packages {
		if !slices.ContainsFunc(p.files, func(f *file) bool { return !f.test }) {
			continue // tests alone are nothing to build
		}
		all = append(all, "./"+p.dir)
		if r, found := h.rowOf(p.dir); found && r.anywhere {
			anywhere = append(anywhere, "./"+p.dir)
		}
	}
	for _, target := range []struct {
		system, arch string
		packages     []string
	}{
		{"darwin", "arm64", anywhere},
		{"windows", "amd64", anywhere},
		{"linux", "386", anywhere},
		{"linux", "s390x", anywhere},
		{"linux", "arm64", all},
	} {
		t.Run(target.system+"/"+target.arch, func(t *testing.T) {
			goTool(t, []string{"GOOS=" + target.system, "GOARCH=" + target.arch, "CGO_ENABLED=0"}, append([]string{"build"}, target.packages...)...)
		})
	}
}
