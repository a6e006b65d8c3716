package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"stasis.example/criu"
)

// counterAction is a word that no one types: the demo runs this program with it.
const counterAction = "internal-counter"

const (
	counterPeriod = 20 * time.Millisecond
	demoPatience  = 10 * time.Second
)

// runCounter counts, a number per line, until it is killed. What it has counted to is in its memory only.
func runCounter(ctx context.Context, args []string) error {
	if len(args) != 0 {
		return &usageError{err: errors.New("a word that the demo uses for itself takes nothing behind it"), brief: true}
	}
	tick := time.NewTicker(counterPeriod)
	defer tick.Stop()
	for n := 1; ; n++ {
		if _, err := fmt.Println(n); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// demo shows the whole way: it starts a counter, dumps it, restores it and looks whether it counts on.
func (r *run) demo(ctx context.Context) (err error) {
	if r.settings.engine.kind != engineService && os.Geteuid() != 0 {
		return errors.New("the demo has to be run as root: freezing a process needs root's rights (or a service: --engine service:SOCKET)")
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	d := &demo{run: r}
	defer func() { err = errors.Join(err, d.cleanUp()) }()
	for _, step := range []func(context.Context) error{d.prepare, d.start, d.dump, d.gone, d.restore, d.counts} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.sum()
	return nil
}

type demo struct {
	run  *run
	peer *peer
	kept bool   // the directory was chosen by the caller
	dir  string // of the images
	out  string // the file that the counter writes to

	pid      int
	original *exec.Cmd     // the counter, until it was dumped
	restored *criu.Process // the counter as our child, afterwards
	alive    bool          // a restored counter that is no child of ours

	before                int // the last number before the dump
	dumpTook, restoreTook time.Duration
	frozen                time.Duration
}

// step prints a line of the story: what, told in a sentence, and how long it took.
func (d *demo) step(name string, took time.Duration, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if took > 0 {
		text = fmt.Sprintf("%-64s %8s", text, timeText(took))
	}
	fmt.Fprintf(d.run.Stdout, "  %-8s %s\n", name, text)
}

func (d *demo) more(format string, args ...any) {
	fmt.Fprintf(d.run.Stdout, "  %-8s %s\n", "", fmt.Sprintf(format, args...))
}

// prepare finds the engine and a place for the files.
func (d *demo) prepare(ctx context.Context) (err error) {
	if d.peer, err = d.run.openPeer(nil, apart); err != nil {
		return err
	}
	v, err := d.peer.client.Version(ctx)
	if err != nil {
		return err
	}
	by := fmt.Sprintf("CRIU %s (%s)", v, d.peer.name)
	if d.run.settings.engine.kind == engineBuiltin {
		by = d.peer.name
	}
	fmt.Fprintf(d.run.Stdout, "A running program, frozen to files and brought back, by %s\n\n", by)
	if d.dir = d.run.settings.imagesDir; d.dir != "" {
		d.kept = true
	} else if d.dir, err = os.MkdirTemp("", "stasis-demo-"); err != nil {
		return fmt.Errorf("no place for the demo's files: %w", err)
	}
	d.out = filepath.Join(absolute(d.dir), "counter.out")
	return nil
}

// start runs the counter as programs have to run to be dumped whole: in a session of its own and without a terminal.
func (d *demo) start(ctx context.Context) error {
	began := time.Now()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("this program does not know where it is: %w", err)
	}
	out, err := os.Create(d.out)
	if err != nil {
		return fmt.Errorf("the counter has nowhere to write to: %w", err)
	}
	defer out.Close()
	cmd := exec.Command(self, counterAction)
	cmd.Env = d.run.env.with(map[string]string{"GOMAXPROCS": "1"})
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("the counter does not start: %w", err)
	}
	d.original, d.pid = cmd, cmd.Process.Pid
	n, err := d.waitForCount(ctx, 10)
	if err != nil {
		return err
	}
	d.step("start", time.Since(began), "A counter runs as process %d and has come to %d.", d.pid, n)
	return nil
}

func (d *demo) dump(ctx context.Context) error {
	began := time.Now()
	_, err := d.peer.client.Dump(ctx, criu.DumpOptions{PID: d.pid, ImagesDir: d.dir, LogFile: "dump.log", LogLevel: criu.LogInfo, Raw: d.run.settings.opts})
	if err != nil {
		return err
	}
	d.dumpTook = time.Since(began)
	stats, err := criu.ReadDumpStats(d.dir)
	if err != nil {
		return err
	}
	d.frozen = stats.Frozen
	names, err := imageNames(d.dir)
	if err != nil {
		return err
	}
	var total int64
	for _, f := range names {
		total += f.size
	}
	d.step("dump", d.dumpTook, "It is written to %d files, %s, in %s", len(names), bytesText(total), d.dir)
	for _, f := range names[:min(3, len(names))] {
		d.more("  %-22s %9s   %s", f.name, bytesText(f.size), f.what())
	}
	d.more("It stood still for %s while it was written.", timeText(d.frozen))
	return nil
}

// gone proves that the counter ended, and that nothing counts.
func (d *demo) gone(ctx context.Context) error {
	d.original.Wait() // it was killed: the status is of no interest, its end is
	d.original = nil
	if err := syscall.Kill(d.pid, 0); !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("process %d should be gone after the dump, but is not (%v)", d.pid, err)
	}
	numbers, err := d.numbers()
	if err != nil {
		return err
	}
	d.before = numbers[len(numbers)-1]
	select {
	case <-time.After(10 * counterPeriod):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	numbers, err = d.numbers()
	if err != nil {
		return err
	}
	if last := numbers[len(numbers)-1]; last != d.before {
		return fmt.Errorf("something counts on: from %d to %d", d.before, last)
	}
	d.step("gone", 0, "There is no process %d any more. The count stays at %d.", d.pid, d.before)
	return nil
}

func (d *demo) restore(ctx context.Context) error {
	began := time.Now()
	o := criu.RestoreOptions{ImagesDir: d.dir, LogFile: "restore.log", LogLevel: criu.LogInfo, Raw: d.run.settings.opts}
	pid := 0
	if d.run.settings.engine.kind == engineService {
		result, err := d.peer.client.Restore(ctx, o)
		if err != nil {
			return err
		}
		pid, d.alive = result.PID, true
	} else {
		child, err := d.peer.client.RestoreChild(ctx, o)
		if err != nil {
			return err
		}
		pid, d.restored = child.PID, child
	}
	d.restoreTook = time.Since(began)
	if pid != d.pid {
		return fmt.Errorf("the counter came back as process %d, it was %d", pid, d.pid)
	}
	d.step("restore", d.restoreTook, "It runs again, as the same process %d.", pid)
	return nil
}

// counts checks that the counter goes on where it was: no number missing, none twice.
func (d *demo) counts(ctx context.Context) error {
	began := time.Now()
	n, err := d.waitForCount(ctx, d.before+10)
	if err != nil {
		return err
	}
	numbers, err := d.numbers()
	if err != nil {
		return err
	}
	for i, got := range numbers {
		if got != i+1 {
			return fmt.Errorf("the count is broken: after %d came %d", i, got)
		}
	}
	d.step("counts", time.Since(began), "It went on with %d and has come to %d: none missing, none twice.", d.before+1, n)
	return nil
}

func (d *demo) sum() {
	fmt.Fprintf(d.run.Stdout, "\nDumped in %s, of which it stood still for %s; restored in %s.\n",
		timeText(d.dumpTook), timeText(d.frozen), timeText(d.restoreTook))
	if d.kept {
		fmt.Fprintf(d.run.Stdout, "The files and the logs are in %s.\n", d.dir)
	}
}

// cleanUp leaves nothing behind.
func (d *demo) cleanUp() error {
	switch {
	case d.original != nil:
		d.original.Process.Kill()
		d.original.Wait()
	case d.restored != nil:
		d.restored.Signal(syscall.SIGKILL)
		d.restored.Wait(context.Background())
	case d.alive:
		syscall.Kill(d.pid, syscall.SIGKILL)
	}
	if d.peer != nil {
		d.peer.close()
	}
	if d.kept || d.dir == "" {
		return nil
	}
	return os.RemoveAll(d.dir)
}

// waitForCount waits until the counter has come to a number, and returns where it is.
func (d *demo) waitForCount(ctx context.Context, atLeast int) (int, error) {
	late := time.After(demoPatience)
	tick := time.NewTicker(counterPeriod / 4)
	defer tick.Stop()
	for {
		numbers, err := d.numbers()
		if err != nil {
			return 0, err
		}
		if len(numbers) > 0 && numbers[len(numbers)-1] >= atLeast {
			return numbers[len(numbers)-1], nil
		}
		select {
		case <-tick.C:
		case <-late:
			return 0, fmt.Errorf("the counter has not come to %d within %v; it wrote %d numbers", atLeast, demoPatience, len(numbers))
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// numbers reads what the counter wrote. A last line that is not complete does not count.
func (d *demo) numbers() (list []int, err error) {
	f, err := os.Open(d.out)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return list, nil
		}
		n, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("the counter wrote %q instead of a number", line)
		}
		list = append(list, n)
	}
}

type imageFile struct {
	name string
	size int64
}

// what says what is in an image.
func (f imageFile) what() string {
	kind, _, _ := strings.Cut(strings.TrimSuffix(f.name, ".img"), "-")
	if text, ok := map[string]string{
		"pages": "its memory", "pagemap": "where which page belongs", "core": "registers, signals, timers", "mm": "the map of its memory",
		"files": "open files", "fdinfo": "the numbers of its open files", "pstree": "the process tree", "ids": "what is shared with whom",
		"inventory": "what all this is", "fs": "working directory and root", "stats": "how the dump went",
	}[kind]; ok {
		return text
	}
	return "more of its state"
}

// imageNames are the images in a directory, the largest first.
func imageNames(dir string) ([]imageFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []imageFile
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && isImage(e.Name()) {
			list = append(list, imageFile{e.Name(), info.Size()})
		}
	}
	slices.SortFunc(list, func(a, b imageFile) int { return int(b.size - a.size) })
	return list, nil
}
