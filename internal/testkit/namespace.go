package testkit

import (
	"context"
	"os/exec"
	"testing"
)

// InNamespaces returns a command that will run a program in mount and pid namespaces of its own, where it is pid 1,
// /proc shows its namespace and mounts stay private. Needs Root. When the command is killed, as at the end of ctx, so is
// everything in the namespace.
func InNamespaces(ctx context.Context, t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	Need(t, Root, Program("unshare"))
	return exec.CommandContext(ctx, "unshare", append([]string{
		"--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--", name,
	}, args...)...)
}
