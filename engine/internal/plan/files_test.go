package plan

import (
	"strings"
	"testing"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
)

// howOf plans a file that is open in some processes, 40 and those after it.
func howOf(object snapshot.Object, flags uint32, o Options, processes int, change func(*snapshot.Tree)) (Open, error) {
	tree := &snapshot.Tree{Files: []*snapshot.File{{ID: 1, Flags: flags, Object: object}}}
	for i := range processes {
		pid := 40 + i
		tree.Tasks = append(tree.Tasks, &snapshot.Task{PID: snapshot.PID{pid}, Session: 30, Table: snapshot.ObjectID(i + 1), State: snapshot.Running})
		tree.Tables = append(tree.Tables, &snapshot.Table{ID: snapshot.ObjectID(i + 1), Slots: []snapshot.Slot{{FD: 3, File: 1}, {FD: 5, File: 1}}})
	}
	if change != nil {
		change(tree)
	}
	p, r := &Plan{Tree: tree, Options: o}, new(images.Report)
	p.openFiles(r)
	if len(p.Opens) == 0 {
		return Open{}, r.Err()
	}
	return p.Opens[0], r.Err()
}

func TestHow(t *testing.T) {
	name := func(s string) *snapshot.Regular { return &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: s}} }
	kind := func(mode uint32) *snapshot.Regular {
		o := name("/x")
		o.Mode = &mode
		return o
	}
	terminal := func(kind snapshot.TerminalKind, device uint32) func(*snapshot.Tree) {
		return func(t *snapshot.Tree) {
			t.Terminals = []*snapshot.Terminal{{ID: 7, Kind: kind, Device: device, FSDevice: new(uint32(0x1a)), Session: 30}}
		}
	}
	for _, c := range []struct {
		name      string
		object    snapshot.Object
		flags     uint32
		options   Options
		processes int // 1 where it is 0
		change    func(*snapshot.Tree)
		how       How
		want      string // a refusal; "" for none
	}{
		{name: "file", object: name("/etc/hosts"), how: OpenPath},
		{name: "external", object: &snapshot.Regular{External: true, Path: snapshot.Path{Name: "file[1b:2]"}}, how: OpenPath, want: `hand it in, by the key "file[1b:2]"`},
		{name: "external, handed in", object: &snapshot.Regular{External: true, Path: snapshot.Path{Name: "file[1b:2]"}}, options: Options{Inherit: []string{"file[1b:2]"}}, how: OpenInherit},
		{name: "by its name, handed in", object: name("/etc/hosts"), options: Options{Inherit: []string{"etc/hosts"}}, how: OpenInherit},
		{name: "pipe", object: &snapshot.PipeEnd{Pipe: 12}, how: OpenPipe},
		{name: "pipe, handed in", object: &snapshot.PipeEnd{Pipe: 12}, options: Options{Inherit: []string{"pipe:[12]"}}, how: OpenInherit},
		{name: "socket", object: kind(modeSock | 0o600), how: OpenPath, want: "is a socket"},
		{name: "the name of a socket", object: kind(modeSock | 0o600), flags: oPath, how: OpenPath},
		{name: "disk", object: kind(modeBlk | 0o600), how: OpenPath, want: "is a block device"},
		{name: "in /proc", object: name("/proc/version"), how: OpenPath},
		{name: "of another process", object: name("/proc/1/stat"), how: OpenPath},
		{name: "of its own process", object: name("/proc/40/stat"), how: OpenLate},
		{name: "the directory of its own process", object: name("/proc/40"), how: OpenLate},
		{name: "of a process that shares it", object: name("/proc/40/stat"), processes: 2, how: OpenLate, want: "more than one process has it open"},
		{name: "of its own process, and somebody is in it", object: name("/proc/40/fd"), how: OpenLate, want: "somebody is in it",
			change: func(t *snapshot.Tree) { t.FSContexts = []*snapshot.FSContext{{ID: 1, Cwd: 1, Root: 1}} }},
		{name: "terminal", object: &snapshot.TTY{Terminal: 7}, change: terminal(snapshot.PTY, 136<<8), how: OpenTTY, want: "restore it as a shell job"},
		{name: "terminal of a shell job", object: &snapshot.TTY{Terminal: 7}, change: terminal(snapshot.PTY, 136<<8), options: Options{ShellJob: true}, how: OpenTTY},
		{name: "/dev/tty of a shell job", object: &snapshot.TTY{Terminal: 7}, change: terminal(snapshot.ControllingTTY, 5<<8), options: Options{ShellJob: true}, how: OpenTTY},
		{name: "master of a terminal", object: &snapshot.TTY{Terminal: 7}, change: terminal(snapshot.PTY, ptmx), options: Options{ShellJob: true}, how: OpenTTY, want: "the master of a pseudoterminal"},
		{name: "external terminal", object: &snapshot.TTY{Terminal: 7}, change: terminal(snapshot.ExternalTTY, 136<<8), how: OpenTTY, want: `by the key "tty[8800:1a]"`},
		{name: "external terminal, handed in", object: &snapshot.TTY{Terminal: 7}, change: terminal(snapshot.ExternalTTY, 136<<8), options: Options{Inherit: []string{"tty[8800:1a]"}}, how: OpenInherit},
		{name: "eventfd", object: &snapshot.EventFD{}, how: Create},
	} {
		t.Run(c.name, func(t *testing.T) {
			open, err := howOf(c.object, c.flags, c.options, max(c.processes, 1), c.change)
			if open.How != c.how {
				t.Errorf("%v, want %v", open.How, c.how)
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("refused with %v, want %q", err, c.want)
			}
			if tty, ok := c.object.(*snapshot.TTY); ok && err == nil && open.How == OpenTTY && (open.Terminal == 0 || tty.Terminal != 7) {
				t.Error("the sort of terminal is not said")
			}
		})
	}
}
