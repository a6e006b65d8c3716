package criu_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"stasis.example/criu"
)

// Freezing a process to files and bringing it back.
func Example() {
	ctx := context.Background()
	client := criu.New(&criu.Swrk{}) // a `criu swrk` child from PATH; criu.Service for a socket
	dir, pid := "/var/lib/ckpt/42", 42
	if _, err := client.Dump(ctx, criu.DumpOptions{PID: pid, ImagesDir: dir, TCPEstablished: true}); err != nil {
		log.Fatal(err) // the sentence says why; pid 42 runs on
	}
	proc, err := client.RestoreChild(ctx, criu.RestoreOptions{ImagesDir: dir, TCPEstablished: true})
	if errors.Is(err, criu.ErrPIDInUse) {
		log.Fatal("somebody else has the pid now: ", err)
	} else if err != nil {
		log.Fatal(err)
	}
	state, err := proc.Wait(ctx)
	fmt.Println(state, err)
}

// A process that dumps itself: the same call returns in the restored copy, too.
func ExampleClient_DumpSelf() {
	client := criu.New(&criu.Swrk{})
	warmUp()
	r, err := client.DumpSelf(context.Background(), criu.DumpOptions{ImagesDir: "warm", LeaveRunning: true})
	switch {
	case err != nil:
		log.Fatal(err)
	case r.Restored:
		fmt.Println("a warm copy, restored")
	default:
		fmt.Println("the original, which runs on")
	}
}

func warmUp() {}

// Pre-dumps while the process runs, until a round writes little, so that it stands still only for the rest.
func ExampleClient_DumpIterative() {
	client := criu.New(&criu.Swrk{})
	result, err := client.DumpIterative(context.Background(), criu.IterativeOptions{
		Dump: criu.DumpOptions{PID: 42, ImagesDir: "/var/lib/ckpt/42"},
		More: func(_ context.Context, r criu.Round) (bool, error) {
			if r.Stats == nil {
				return false, nil
			}
			return r.N < 8 && r.Stats.PagesWritten > 1000, nil
		},
	})
	fmt.Println(result.Rounds, result.Dir, err)
}

// One conversation for several questions.
func ExampleSession() {
	session := criu.New(&criu.Service{Path: "/run/criu.socket"}).Session()
	defer session.Close()
	version, err := session.Version(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	features, err := session.Features(context.Background())
	fmt.Println(version.AtLeast(3, 15), features.LazyPages, err)
}

// What a container runtime needs for a restore: its init's stdio, a cgroup joined before anything happens, inherited
// pipes, the master of the container's console, a process handle to wait for, and hooks at the stages.
func ExampleClient_RestoreChild_containerRuntime() {
	var (
		bundle, cgroup        = "/run/runtime/ctr", "/sys/fs/cgroup/runtime/ctr"
		stdin, stdout, stderr *os.File // of the container's init
		stdoutPipe            *os.File // takes the place of the pipe that was dumped as pipe:[4711]
		console               *os.File
		runHooks              = func(pid int) error { return nil }
		bindMounts            []string
	)
	swrk := &criu.Swrk{
		Stdin: stdin, Stdout: stdout, Stderr: stderr,
		Started: func(pid int) error { // between start and request
			return os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), fmt.Append(nil, pid), 0)
		},
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // a hung CRIU is killed, with what it made
	defer cancel()
	init, err := criu.New(swrk).RestoreChild(ctx, criu.RestoreOptions{
		ImagesDir: filepath.Join(bundle, "checkpoint"), WorkDir: bundle, LogFile: "restore.log", LogLevel: criu.LogDebug,
		Root: filepath.Join(bundle, "rootfs"), External: bindMounts,
		ManageCgroupsMode: criu.CgroupModeSoft, TCPEstablished: true, FileLocks: true,
		OrphanPTSMaster: true, EmptyNamespaces: criu.NamespaceNet,
		InheritFiles: []criu.InheritFile{{Key: "pipe:[4711]", File: stdoutPipe}},
		ConfigFile:   "/etc/criu/runtime.conf",
		Notify: func(ctx context.Context, ev *criu.Event) error {
			switch ev.Name {
			case "setup-namespaces":
				return runHooks(ev.PID)
			case "orphan-pts-master":
				console = ev.TakeFile()
			}
			return nil
		},
	})
	if failed, ok := errors.AsType[*criu.Error](err); ok {
		log.Fatalf("%s: %s (CRIU's log: %s)", failed.Op, strings.Join(failed.Log, "; "), failed.LogFile)
	}
	defer console.Close()
	state, err := init.Wait(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(state.ExitCode(), state)
}
