package test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"stasis.example/internal/testkit"
)

// TestExamples builds the programs of examples/c and runs each as its reader would.
func TestExamples(t *testing.T) {
	r := newReal(t)
	out := t.TempDir()
	run(t, command(t, "make", "--no-print-directory", "-C", filepath.Join(testkit.SourceRoot(), "examples", "c"), "OUT="+out,
		"LIB="+r.lib))
	example := func(name string, args ...string) output {
		t.Helper()
		cmd := command(t, filepath.Join(out, name), args...)
		cmd.Dir = r.dir
		return output{t, run(t, cmd)}
	}

	check := example("check")
	check.want("check: good")
	check.want(`version: \d+\.\d+\.\d+`)
	check.want("at least 3.15: yes")

	v := r.victim("counter")
	pid := strconv.Itoa(v.pid)
	stages := example("notify", pid, r.images("notify"))
	stages.want("1: pre-dump, pid 0")
	stages.want(`dump: 0 after \d+ stages`)
	v.advance()
	example("dump", "-r", pid, r.images("running")).want("dumped")
	v.advance()
	example("dump", pid, r.images("img")).want("dumped")
	v.gone()
	example("restore", r.images("img")).want("restored " + pid)
	v.advance()
	v.kill()

	lived := filepath.Join(r.dir, "lived")
	example("self_dump", r.images("self"), lived)
	back := example("restore_child", r.images("self"))
	back.want(`restored \d+`)
	back.want("it exited with 3")
	b, err := os.ReadFile(lived)
	must(t, err)
	if want := "before\ndumped\nrestored\n"; string(b) != want {
		t.Errorf("self_dump wrote %q", b)
	}
}
