package plan

import (
	"fmt"
	"io"
	"strings"

	"stasis.example/engine/internal/snapshot"
)

// WriteTo writes the plan as text. The text is for people and for tests; its form may change.
func (p *Plan) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	p.tasks(&b)
	section(&b, "files")
	for i := range p.Opens {
		p.openText(&b, &p.Opens[i])
	}
	section(&b, "processes")
	for _, s := range p.Steps {
		b.WriteString("  " + s.String() + "\n")
	}
	for _, t := range p.Tree.Tasks {
		for _, birth := range p.Births[t.PID.Num()] {
			b.WriteString("  " + birth.String() + "\n")
		}
	}
	section(&b, "memory")
	for i := range p.Memory {
		p.memoryText(&b, &p.Memory[i])
	}
	section(&b, "descriptors")
	for _, t := range p.Tree.Tables {
		p.tableText(&b, t)
	}
	if len(p.Watches) > 0 {
		section(&b, "epoll")
		for _, watch := range p.Watches {
			user := fmt.Sprintf("process %d", watch.Task)
			if watch.Thread != 0 {
				user = fmt.Sprintf("thread %d", watch.Thread)
			}
			fmt.Fprintf(&b, "  file %d, in %s by descriptor %d, watches", watch.Epoll, user, watch.FD)
			for _, item := range watch.Items {
				fmt.Fprintf(&b, " %d(file %d)", item.FD, item.File)
			}
			b.WriteString("\n")
		}
	}
	if len(p.Notes) > 0 {
		section(&b, "notes")
		for _, note := range p.Notes {
			b.WriteString("  " + note + "\n")
		}
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// String returns the text of WriteTo.
func (p *Plan) String() string {
	var b strings.Builder
	p.WriteTo(&b)
	return b.String()
}

func section(b *strings.Builder, name string) { fmt.Fprintf(b, "\n%s\n", name) }

func (p *Plan) tasks(b *strings.Builder) {
	t := p.Tree
	fmt.Fprintf(b, "tree of %s, pages of %d bytes\n", counted(len(t.Tasks), "process", "processes"), t.PageSize)
	depth := make(map[int]int, len(t.Tasks))
	for _, task := range t.Tasks {
		d := 1
		if up, ok := depth[task.Parent]; ok {
			d = up + 1
		}
		depth[task.PID.Num()] = d
		fmt.Fprintf(b, "%s%s %q, group %d, session %d, %v", strings.Repeat("  ", min(d, 20)), task.PID, task.Comm, task.Group, task.Session, task.State)
		switch {
		case task.State == snapshot.Dead:
			fmt.Fprintf(b, " with status %#x", task.Exit)
		case task.State == snapshot.Stopped && task.StopSig != 0:
			fmt.Fprintf(b, " by signal %d", task.StopSig)
		}
		if n := len(task.Threads); n > 1 {
			fmt.Fprintf(b, ", %d threads", n)
		}
		b.WriteString("\n")
	}
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func processName(pid int) string {
	switch {
	case pid == 0:
		return "the engine"
	case anyPID(pid):
		return fmt.Sprintf("helper %d", -pid)
	}
	return fmt.Sprint(pid)
}

// String returns a line for people.
func (s Step) String() string {
	name := processName(s.PID)
	switch s.Op {
	case Fork:
		what := name
		if s.Helper && !anyPID(s.PID) {
			what = "helper with pid " + name
		}
		text := processName(s.By)
		if s.ByThread != 0 {
			text += fmt.Sprintf(", by thread %d,", s.ByThread)
		}
		text += " forks " + what
		if s.Sibling {
			text += " as a sibling"
		}
		if names := s.Share.names(); len(names) > 0 {
			text += ", sharing " + strings.Join(names, ", ")
		}
		return text
	case SetSession:
		return name + " leads a session"
	case SetGroup:
		if s.Group == 0 {
			return name + " enters the engine's group"
		}
		return fmt.Sprintf("%s enters group %d", name, s.Group)
	case Adopt:
		return name + " becomes a subreaper"
	case Unadopt:
		return name + " is no subreaper any more"
	case Dismiss:
		return fmt.Sprintf("helper %s ends, and %s waits for it", strings.TrimPrefix(name, "helper "), processName(s.By))
	case Die:
		return name + " dies"
	case Fill:
		return name + " gets its memory"
	case AddThread:
		text := fmt.Sprintf("thread %d by %d", s.Thread, s.ByThread)
		for _, name := range (^s.Share & (ShareFiles | ShareFS)).names() {
			text += ", with a copy of the " + name
		}
		return text
	case Unshare:
		return name + " gets a copy of its own of " + strings.Join(s.Share.names(), ", ")
	}
	return fmt.Sprintf("Op(%d) %s", s.Op, name)
}

func (s Share) names() []string {
	var names []string
	for i, name := range []string{"memory", "descriptors", "working directory", "handlers"} {
		if s>>i&1 != 0 {
			names = append(names, name)
		}
	}
	return names
}

func (p *Plan) openText(b *strings.Builder, o *Open) {
	fmt.Fprintf(b, "  %d %v", o.File.ID, o.How)
	switch object := o.File.Object.(type) {
	case *snapshot.Regular:
		fmt.Fprintf(b, " %s", object.Path.Name)
		if object.Ghost != 0 {
			fmt.Fprintf(b, " that is gone, as it is in ghost %d", object.Ghost)
		}
		if object.Link != 0 {
			fmt.Fprintf(b, " that is gone, by the name of file %d", object.Link)
		}
		if object.Path.Mount != -1 {
			fmt.Fprintf(b, " of mount %d", object.Path.Mount)
		}
		if o.Itself {
			fmt.Fprintf(b, ", flags %#o", o.File.Flags)
		}
		if object.Pos != 0 {
			fmt.Fprintf(b, ", at %d", object.Pos)
		}
		for _, flags := range o.Map {
			fmt.Fprintf(b, ", to be mapped with flags %#o", flags)
		}
	case *snapshot.PipeEnd, *snapshot.FIFOEnd:
		fmt.Fprintf(b, " %d, flags %#o", o.Pipe.ID, o.File.Flags)
		if c := o.Pipe.Content; c != nil {
			fmt.Fprintf(b, ", %d of %d bytes in it", len(c.Data), c.Capacity)
		}
		if o.Pipe.Readers == 0 {
			b.WriteString(", nobody reads")
		}
		if o.Pipe.Writers == 0 {
			b.WriteString(", nobody writes")
		}
	case *snapshot.TTY:
		fmt.Fprintf(b, " %d, flags %#o", object.Terminal, o.File.Flags)
	default:
		fmt.Fprintf(b, " %s, flags %#o", object.Kind(), o.File.Flags)
	}
	if o.How == OpenInherit {
		fmt.Fprintf(b, ", by the key %q", o.Key)
	}
	b.WriteString("\n")
}

func (p *Plan) memoryText(b *strings.Builder, m *Memory) {
	fmt.Fprintf(b, "  %d: ", m.PID)
	for _, s := range p.Tree.Spaces {
		if s.ID == m.Space {
			b.WriteString(counted(len(s.VMAs), "mapping", "mappings") + ", ")
		}
	}
	fmt.Fprintf(b, "%s in %s", counted(int(m.Pages), "page", "pages"), counted(m.Runs, "run", "runs"))
	if m.InParent > 0 {
		fmt.Fprintf(b, ", %d of them of earlier dumps", m.InParent)
	}
	if m.From != 0 {
		fmt.Fprintf(b, ", %d of them perhaps shared with %d", m.Shareable, m.From)
	}
	b.WriteString("\n")
}

func (p *Plan) tableText(b *strings.Builder, t *snapshot.Table) {
	var users []string
	for _, task := range p.Tree.Tasks {
		if task.Table == t.ID && task.State != snapshot.Dead {
			users = append(users, task.PID.String())
		}
		for _, thread := range task.Threads {
			if thread.Table == t.ID {
				users = append(users, "thread "+thread.TID.String())
			}
		}
	}
	fmt.Fprintf(b, "  %s:", strings.Join(users, ", "))
	for _, s := range t.Slots {
		fmt.Fprintf(b, " %d=%d", s.FD, s.File)
		if s.CloseOnExec {
			b.WriteString("x")
		}
	}
	b.WriteString("\n")
}
