package criu_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/criutest"
	"stasis.example/internal/testkit"
)

// client returns a client that does not wait long for a peer that hangs.
func client(t criu.Transport) *criu.Client { return criu.New(t, criu.WithGrace(200*time.Millisecond)) }

// Everything but Owns: what can be expected of a peer that is not the caller's child.
const remote = criutest.Notifies | criutest.Cancels | criutest.Explains

func TestScriptedInProcess(t *testing.T) {
	criutest.Run(t, criutest.Target{Can: remote, Scripted: func(_ testing.TB, p *criutest.Peer) criutest.Client {
		return client(p.Transport())
	}})
}

func TestScriptedService(t *testing.T) {
	criutest.Run(t, criutest.Target{Can: remote, Scripted: func(_ testing.TB, p *criutest.Peer) criutest.Client {
		return client(p.Service())
	}})
}

func TestScriptedSwrk(t *testing.T) {
	criutest.Run(t, criutest.Target{Can: criutest.Everything, Scripted: func(_ testing.TB, p *criutest.Peer) criutest.Client {
		return client(p.Swrk())
	}})
}

// patientClient gives a real CRIU the time to undo what it did.
func patientClient(t criu.Transport) *criu.Client { return criu.New(t) }

func TestRealSwrk(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU)
	criutest.Run(t, criutest.Target{Can: criutest.Everything, Real: func(t testing.TB) criutest.Client {
		return patientClient(&criu.Swrk{Path: testkit.CRIUPath(t)})
	}})
}

func TestRealService(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU)
	service := startService(t)
	criutest.Run(t, criutest.Target{Can: remote, Real: func(t testing.TB) criutest.Client { return patientClient(service) }})
}

func TestRealFD(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU)
	criutest.Run(t, criutest.Target{Can: remote, Real: func(t testing.TB) criutest.Client {
		return patientClient(dialSwrk(t, testkit.CRIUPath(t)))
	}})
}

// startService starts `criu service` and waits until it listens.
func startService(t testing.TB) *criu.Service {
	t.Helper()
	dir, err := os.MkdirTemp("", "criu-service-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "socket")
	ready, readyWriter, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd := exec.Command(testkit.CRIUPath(t), "service", "--address", socket, "--status-fd", "3", "--work-dir", dir, "--log-file", "service.log", "-v4")
	cmd.ExtraFiles = []*os.File{readyWriter}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	readyWriter.Close()
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if n, err := ready.Read(make([]byte, 1)); n != 1 {
		log, _ := os.ReadFile(filepath.Join(dir, "service.log"))
		t.Fatalf("the service is not ready: %v\n%s", err, log)
	}
	return &criu.Service{Path: socket}
}

// dialSwrk returns a transport of descriptors, each connected to a `criu swrk` of its own that the test has started.
func dialSwrk(t testing.TB, path string) criu.Transport {
	return criutest.Dialer(func(context.Context) (criu.Transport, error) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		theirs := os.NewFile(uintptr(pair[1]), "swrk's end")
		defer theirs.Close()
		cmd := exec.Command(path, "swrk", strconv.Itoa(3))
		cmd.ExtraFiles = []*os.File{theirs}
		if err := cmd.Start(); err != nil {
			unix.Close(pair[0])
			return nil, err
		}
		ended := make(chan struct{})
		go func() {
			cmd.Wait() // its status is 255 where the client has closed the conversation
			close(ended)
		}()
		t.Cleanup(func() { <-ended })
		return &criu.FD{File: os.NewFile(uintptr(pair[0]), "socket to a swrk")}, nil
	})
}
