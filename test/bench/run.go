package main

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
)

// A bench is one run of the program.
type bench struct {
	rounds   int
	restores bool
	only     *regexp.Regexp
	peers    []peer
	victims  string
	dirs     map[place]string
	load     load

	launcher string
	started  int
}

// A peer is one of the programs that are compared.
type peer struct {
	name    string
	command []string
}

//go:embed testdata/launch.c
var launchSource string

// launch runs a program under the launcher, and says what it took.
func (b *bench) launch(argv ...string) (cost, error) {
	if b.launcher == "" {
		source := filepath.Join(b.dirs[inMemory], "launch.c")
		if err := os.WriteFile(source, []byte(launchSource), 0o600); err != nil {
			return cost{}, err
		}
		program := strings.TrimSuffix(source, ".c")
		if output, err := exec.Command("cc", "-O2", "-static", "-o", program, source).CombinedOutput(); err != nil {
			return cost{}, fmt.Errorf("cc: %w\n%s", err, output)
		}
		b.launcher = program
	}
	read, write, err := os.Pipe()
	if err != nil {
		return cost{}, err
	}
	defer read.Close()
	cmd := exec.Command(b.launcher, argv...)
	cmd.ExtraFiles = []*os.File{write}
	output, err := cmd.CombinedOutput()
	write.Close()
	if err != nil {
		return cost{}, fmt.Errorf("launch %v: %w", argv, err)
	}
	var c cost
	var status int
	if _, err := fmt.Fscan(read, &c.wall, &c.peak, &c.user, &c.system, &status); err != nil {
		return cost{}, err
	}
	if status != 0 {
		return cost{}, fmt.Errorf("%v ended with status %#x\n%s", argv, status, output)
	}
	return c, nil
}

// A cost is what a program took: nanoseconds, KiB, microseconds.
type cost struct {
	wall         float64
	peak         float64
	user, system float64
}

// measure lets the peers do a piece of work in turn.
func (b *bench) measure(p piece, rounds int) (*results, error) {
	r := &results{values: map[column]map[string][]float64{}}
	var shared *victim
	if p.stays {
		var err error
		if shared, err = b.start(p.victim); err != nil {
			return nil, err
		}
		defer shared.end()
	}
	for round := range rounds + 1 { // the first warms up
		b.load.calibrate()
		for i := range b.peers {
			peer := b.peers[(i+round)%len(b.peers)]
			values, err := b.once(p, peer, shared)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", peer.name, err)
			}
			if round == 0 {
				continue
			}
			for c, v := range values {
				r.add(c, peer.name, v)
			}
		}
	}
	return r, nil
}

// once lets a peer do a piece of work.
func (b *bench) once(p piece, peer peer, v *victim) (map[column]float64, error) {
	dir, err := os.MkdirTemp(b.dirs[p.place], "images-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if v == nil {
		if v, err = b.start(p.victim); err != nil {
			return nil, err
		}
		defer v.end()
	}
	argv := append([]string{}, peer.command...)
	argv = append(argv, "dump", "-t", strconv.Itoa(v.pid), "-D", dir, "-o", "dump.log")
	if p.stays {
		argv = append(argv, "-R")
	}
	b.settle(p.place, dir)
	values := map[column]float64{}
	c, err := b.launch(argv...)
	if err != nil {
		return nil, err
	}
	values[dumpWall], values[dumpPeak] = c.wall, c.peak
	stats, err := criu.ReadDumpStats(dir)
	if err != nil {
		return nil, err
	}
	values[frozenTime] = float64(stats.Frozen)
	if p.stays || !b.restores {
		return values, nil
	}
	if err := v.wait(); err != nil {
		return nil, err
	}
	b.settle(p.place, dir)
	if c, err = b.launch(append(append([]string{}, peer.command...), "restore", "-D", dir, "-o", "restore.log", "-d")...); err != nil {
		return nil, err
	}
	values[restoreWall], values[restorePeak] = c.wall, c.peak
	return values, nil
}

// settle waits until a disk has what was written to it: the page cache is measured, not who has to write out what others left.
func (b *bench) settle(where place, dir string) {
	if where != onDisk {
		return
	}
	if f, err := os.Open(dir); err == nil {
		_ = unix.Syncfs(int(f.Fd()))
		f.Close()
	}
}

// A victim is a process that is dumped.
type victim struct {
	pid    int
	pidfd  int
	child  *exec.Cmd
	output string
}

// start starts a victim and waits until it is set up.
func (b *bench) start(args []string) (*victim, error) {
	b.started++
	v := &victim{output: filepath.Join(b.dirs[inMemory], fmt.Sprintf("victim-%d", b.started))}
	v.child = exec.Command(filepath.Join(b.victims, "many"), args...)
	v.child.Dir = b.dirs[inMemory]
	v.child.Env = []string{"VICTIM_OUTPUT=" + v.output}
	v.child.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &v.pidfd}
	if err := v.child.Start(); err != nil {
		return nil, err
	}
	v.pid = v.child.Process.Pid
	return v, until("the victim to be ready", func() bool {
		text, err := os.ReadFile(v.output)
		return err == nil && strings.HasPrefix(string(text), "ready\n")
	})
}

// wait waits until a victim that was dumped is gone, and until its id can be used again: the kernel tells a parent of the end
// before it gives the number back.
func (v *victim) wait() error {
	_ = v.child.Wait() // it was killed
	v.child = nil
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	return until("the victim's id to be free", func() bool {
		_, err := unix.FcntlInt(null.Fd(), unix.F_SETOWN, v.pid)
		return errors.Is(err, unix.ESRCH)
	})
}

// end ends a victim, the one that was started or the one that was restored.
func (v *victim) end() {
	if v.child != nil {
		_ = v.child.Process.Kill() // it may have ended
		_ = v.child.Wait()
	} else if fd, err := unix.PidfdOpen(v.pid, 0); err == nil {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		_ = unix.Close(fd)
	}
	_ = unix.Close(v.pidfd)
	_ = os.Remove(v.output)
}

func until(what string, condition func() bool) error {
	deadline := time.Now().Add(time.Minute)
	for !condition() {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited a minute for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}
