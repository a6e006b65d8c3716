package server

import (
	"context"
	"slices"
	"testing"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// stages has a victim dumped and restored, and returns the notifications that came, with a star where there was a pid.
func stages(t *testing.T, client *criu.Client) (dump, restore []string) {
	t.Helper()
	v := testkit.StartVictim(t, "counter")
	into := func(list *[]string) func(context.Context, *criu.Event) error {
		return func(_ context.Context, e *criu.Event) error {
			name := e.Name
			if e.PID == v.Pid {
				name += "*"
			}
			*list = append(*list, name)
			return nil
		}
	}
	dir := t.TempDir()
	if _, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir, Notify: into(&dump)}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Restore(t.Context(), criu.RestoreOptions{ImagesDir: dir, Notify: into(&restore)}); err != nil {
		t.Fatal(err)
	}
	v.Restored()
	v.MustVerify()
	return dump, restore
}

// The built-in engine tells of the stages that CRIU tells of, in its order.
func TestStagesAreCRIUs(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
	wantDump, wantRestore := stages(t, criu.New(swrkOf(testkit.CRIUPath(t))))
	gotDump, gotRestore := stages(t, criu.New(swrkOf(builtin)))
	t.Log(wantDump, wantRestore)
	if !slices.Equal(gotDump, wantDump) || !slices.Equal(gotRestore, wantRestore) {
		t.Errorf("dump %v, restore %v; CRIU's %v, %v", gotDump, gotRestore, wantDump, wantRestore)
	}
}
