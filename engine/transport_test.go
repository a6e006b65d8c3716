//go:build amd64

package engine

import (
	"errors"
	"strings"
	"testing"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// TestTransport dumps and restores by the client, over the seam.
func TestTransport(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	v := testkit.StartVictim(t, "counter")
	dir := testkit.MemoryDir(t)
	client := criu.New(New())
	if _, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir, LogFile: "dump.log"}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	p, err := client.Restore(t.Context(), criu.RestoreOptions{ImagesDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	_ = p
	v.Restored()
	v.MustVerify()
}

// TestTransportRefuses wants options that the engine has not named.
func TestTransportRefuses(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	v := testkit.StartVictim(t, "counter")
	_, err := criu.New(New()).Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: testkit.MemoryDir(t), TCPEstablished: true, TrackMem: true})
	if !errors.Is(err, criu.ErrFailed) || !strings.Contains(err.Error(), "TCPEstablished, TrackMem") && !strings.Contains(err.Error(), "TrackMem") {
		t.Errorf("a dump with options that the engine has not: %v", err)
	}
	v.MustVerify()
}
