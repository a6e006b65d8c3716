package test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"stasis.example/internal/testkit"
)

// TestHosts uses the library in processes that libraries with a run-time of their own do not survive in.
func TestHosts(t *testing.T) {
	lib := library(t)
	hosts := program(t, "hosts.c")
	for _, tt := range []struct {
		mode  string
		args  []string
		needs []testkit.Requirement
	}{
		{mode: "fork-unused"}, {mode: "fork-used"}, {mode: "fork-unused-threads"}, {mode: "fork-used-threads"},
		{mode: "namespaces", needs: []testkit.Requirement{testkit.Root}},
		{mode: "address-space"},
		{mode: "small-stack", args: []string{t.TempDir()}},
		{mode: "callbacks"},
		{mode: "threads"},
		{mode: "subreaper"},
		{mode: "limits", needs: []testkit.Requirement{testkit.Root}},
		{mode: "nomem"},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			testkit.Need(t, tt.needs...)
			t.Log(strings.TrimSpace(run(t, with(command(t, hosts, append([]string{tt.mode}, tt.args...)...), libraryPath(lib)))))
		})
	}
}

// TestUnload loads and unloads the library a thousand times, as crun does once.
func TestUnload(t *testing.T) {
	lib := filepath.Join(library(t), "libcriu.so.2")
	hosts := program(t, "hosts.c", "-Wl,--unresolved-symbols=ignore-all", "-Wl,-z,lazy")
	// A program that is linked with the library would keep it: this one only names it.
	run(t, exec.Command("patchelf", "--remove-needed", "libcriu.so.2", hosts))
	t.Log(strings.TrimSpace(run(t, command(t, hosts, "dlopen", lib))))
}
