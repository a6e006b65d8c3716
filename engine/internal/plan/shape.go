package plan

import (
	"math"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
)

// Shaping a tree
//
// A process gets its session from whoever forks it, and can change it once, to one of its own. So each process has to be forked
// by a process that is in the right session at that moment, and still become the child of the right parent. Four ways are tried:
//
//	the parent            is in the session (or it does not matter, as the child will lead one of its own)
//	the parent, earlier   a leader forks, before it leaves for its own session, the children that stayed in the one it was born in
//	a sibling             a child of the same parent is in the session, and forks with CLONE_PARENT
//	an orphan             a descendant of the parent is in the session: it forks a helper, the helper forks the process and ends, and
//	                      the parent, as a subreaper, gets the process
//
// Where the leader of a session is gone, a helper with its number leads it until all are there. Groups come afterwards, by
// setpgid, with helpers for those whose leader is gone. What is left out are trees in which a leader was given from one
// subreaper to another, and left members of its session with both; they are refused.

// anySession is what a process that will lead a session needs to be born in.
const anySession = -1

// outside is the session, and the process group, of whoever restores.
const outside = 0

// node is a process while the tree is shaped.
type node struct {
	pid      int
	task     *snapshot.Task // nil for a helper
	parent   *node          // nil for the root
	children []*node
	depth    int
	in, out  int // its place in a walk of the tree: descendants are those between

	session int // in the end
	group   int // in the end
	born    int // the session that it has to be forked in, or anySession

	made       bool
	nowSession int
	nowGroup   int
}

func (n *node) leads() bool { return n.session == n.pid && n.session != outside }

// above reports whether n is an ancestor of m.
func (n *node) above(m *node) bool {
	for p := m.parent; p != nil && p.depth >= n.depth; p = p.parent {
		if p == n {
			return true
		}
	}
	return false
}

// session is what is known of one.
type session struct {
	leader    *node // nil where it is gone
	low, high int   // of the places of its members in the walk
	members   []*node
}

// maxTangle bounds the search for processes that can fork others into their sessions.
const maxTangle = 1 << 24

type shaper struct {
	r        *images.Report
	nodes    []*node // tasks, parents first
	byPID    map[int]*node
	sessions map[int]*session
	groups   map[int]int // group → its session
	steps    []Step
	helpers  []*node // to be dismissed at the end
	anon     int     // helpers without a number of their own
	tangle   int
	shares   sharer
}

// Possible reports what keeps the processes and threads of a tree from being made, as a shell job if need be: a dump asks before it
// ends them.
func Possible(t *snapshot.Tree, r *images.Report) {
	p := &Plan{Tree: t, Steps: shape(t, true, r)}
	p.births(r)
	p.threadTerminals(r)
}

// maxAttempts bounds how often a tree is tried. Each attempt decides for one more leader what it is born in.
const maxAttempts = 64

// shape returns the steps that make the processes of a tree.
func shape(t *snapshot.Tree, shellJob bool, r *images.Report) []Step {
	if t.Root() == nil {
		return nil // which has been said
	}
	forced := make(map[int]int)
	for range maxAttempts {
		if r.Stopped() {
			return nil
		}
		s := &shaper{
			r: r, byPID: make(map[int]*node), sessions: make(map[int]*session), groups: make(map[int]int), shares: newSharer(t, r),
		}
		if !s.adopt(t, shellJob) || !s.legal(t) {
			return nil
		}
		s.walk()
		s.demands(forced)
		stuck := s.forkAll()
		if len(stuck) == 0 {
			s.setGroups()
			s.finish()
			s.checkShares()
			return s.steps
		}
		if s.tangle > maxTangle || !force(forced, stuck) {
			for _, n := range stuck {
				r.Unsupported(pstreeName, "process %d cannot be brought into session %d as a child of process %d", n.pid, n.born, n.parent.pid)
			}
			return nil
		}
	}
	r.Unsupported(pstreeName, "no order is found in which the processes can be made")
	return nil
}

// force decides for the parent of a process that found no way that it is to be born in the session that the process needs.
func force(forced map[int]int, stuck []*node) bool {
	for _, n := range stuck {
		p := n.parent
		if _, is := forced[p.pid]; p.leads() && p.parent != nil && !is && n.born != p.pid {
			forced[p.pid] = n.born
			return true
		}
	}
	return false
}

var pstreeName = image.PSTree.File(0)

// adopt makes the nodes. Where the tree is a shell job, the session and the group that its root has from outside become those of
// whoever restores it, and so does the group of that session's leader, the shell.
func (s *shaper) adopt(t *snapshot.Tree, shellJob bool) bool {
	root := t.Root()
	if root.State == snapshot.Dead {
		s.r.Unsupported(pstreeName, "the root, process %s, is dead", root.PID)
		return false
	}
	num := root.PID.Num()
	if root.Session != num && !shellJob {
		s.r.Unsupported(pstreeName, "the root, process %s, is not the leader of its session, %d: restore it as a shell job", root.PID, root.Session)
		return false
	}
	if len(t.Tasks) > 1 && root.Session == 0 {
		// All that the root's namespace has no number for looks the same.
		s.r.Note("%s: the session of process %s has no number; what has none either is taken to be in the same", pstreeName, root.PID)
	}
	for i, task := range t.Tasks {
		n := &node{pid: task.PID.Num(), task: task, session: task.Session, group: task.Group}
		if root.Session != num && task.Session == root.Session {
			n.session = outside
			if root.Group != num && task.Group == root.Group || task.Group == root.Session {
				n.group = outside
			}
		}
		if s.byPID[n.pid] != nil {
			return false // which has been said
		}
		if i > 0 {
			if n.parent = s.byPID[task.Parent]; n.parent == nil {
				return false // likewise
			}
			n.depth = n.parent.depth + 1
			n.parent.children = append(n.parent.children, n)
		}
		s.byPID[n.pid] = n
		s.nodes = append(s.nodes, n)
	}
	return true
}

// legal checks that sessions and groups are what a kernel can have.
func (s *shaper) legal(t *snapshot.Tree) bool {
	ok := true
	bad := func(format string, args ...any) {
		s.r.Damaged(pstreeName, format, args...)
		ok = false
	}
	threads := make(map[int]int)
	for _, task := range t.Tasks {
		for i, thread := range task.Threads {
			if i > 0 {
				threads[thread.TID.Num()] = task.PID.Num()
			}
		}
	}
	for _, n := range s.nodes {
		// Nobody but those who have the root's own may be in a session or a group from outside.
		if n.session == outside && s.nodes[0].session != outside || n.group == outside && n.session != outside {
			bad("process %d: session %d and group %d, of which one has no number", n.pid, n.task.Session, n.task.Group)
			continue
		}
		if n.leads() && n.group != n.pid {
			bad("process %d leads session %d and is in group %d", n.pid, n.session, n.group)
		}
		for _, id := range []int{n.session, n.group} {
			if owner, is := threads[id]; is && id != outside {
				bad("process %d: session %d or group %d is a thread of process %d", n.pid, n.task.Session, n.task.Group, owner)
			}
		}
		if lead := s.byPID[n.session]; lead != nil && n.session != outside && !lead.leads() {
			bad("process %d is in session %d, and process %d does not lead it", n.pid, n.session, n.session)
		}
		if in, seen := s.groups[n.group]; seen && in != n.session && n.group != outside {
			bad("group %d is in session %d and, with process %d, in session %d", n.group, in, n.pid, n.session)
		} else if n.group != outside {
			s.groups[n.group] = n.session
		}
		sess := s.sessions[n.session]
		if sess == nil {
			sess = &session{leader: s.byPID[n.session], low: math.MaxInt}
			s.sessions[n.session] = sess
		}
	}
	// A number is that of a process, of the group it leads and of the session it leads, all at once.
	for _, n := range s.nodes {
		lead := s.byPID[n.group]
		if n.group != outside && (lead != nil && lead.session != n.session || lead == nil && s.sessions[n.group] != nil && n.group != n.session) {
			bad("process %d: group %d is in session %d, and the process or session with its number is not", n.pid, n.group, n.session)
		}
	}
	return ok
}

// walk numbers the nodes so that the descendants of one are between two numbers.
func (s *shaper) walk() {
	next := 0
	type frame struct {
		n     *node
		child int
	}
	stack := []frame{{n: s.nodes[0]}}
	for len(stack) > 0 {
		f := &stack[len(stack)-1]
		if f.child == 0 {
			f.n.in = next
			next++
		}
		if f.child < len(f.n.children) {
			f.child++
			stack = append(stack, frame{n: f.n.children[f.child-1]})
			continue
		}
		f.n.out = next
		stack = stack[:len(stack)-1]
	}
	for _, n := range s.nodes {
		sess := s.sessions[n.session]
		sess.low, sess.high = min(sess.low, n.in), max(sess.high, n.in)
	}
}

// demands finds out in which session each has to be born: children first, since what a leader's children need decides where
// the leader has to come from. Where they need different things the first is taken, unless forced says which.
func (s *shaper) demands(forced map[int]int) {
	for i := len(s.nodes) - 1; i >= 0; i-- {
		n := s.nodes[i]
		if !n.leads() {
			n.born = n.session
			continue
		}
		n.born = anySession
		if n.parent == nil {
			continue
		}
		if born, is := forced[n.pid]; is {
			n.born = born
			continue
		}
		for _, c := range n.children {
			if c.born == anySession || c.born == n.pid || s.below(c.born, n) {
				continue
			}
			n.born = c.born
			break
		}
	}
}

// below reports whether a session belongs to descendants of a process: then children that are in it came back as orphans, and
// were not there before their parent left that session.
func (s *shaper) below(id int, n *node) bool {
	sess := s.sessions[id]
	if sess == nil {
		return false
	}
	if l := sess.leader; l != nil {
		return l.in > n.in && l.in < n.out
	}
	return sess.low >= n.in && sess.high < n.out
}

// forkAll makes all processes. It returns those that it found no way for.
func (s *shaper) forkAll() []*node {
	root := s.nodes[0]
	root.nowSession, root.nowGroup = outside, outside
	waiting := s.fork(root, nil, Step{Op: Fork, PID: root.pid})
	for len(waiting) > 0 {
		var left []*node
		progress := false
		for _, n := range waiting {
			more, done := s.enter(n)
			if done {
				progress = true
				left = append(left, more...)
			} else {
				left = append(left, n)
			}
		}
		if !progress && !s.lead(left) {
			return left
		}
		waiting = left
	}
	return nil
}

// fork makes a process and all descendants that can be made the plain way. It returns those that cannot.
func (s *shaper) fork(n, by *node, step Step) (waiting []*node) {
	s.made(n, by, step)
	return s.descend(n)
}

func (s *shaper) descend(n *node) (waiting []*node) {
	queue := []*node{n}
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		var later []*node
		for _, c := range p.children {
			switch {
			case c.made:
			case p.leads() && p.nowSession != p.session && c.born == p.nowSession:
				s.child(c, p)
				queue = append(queue, c)
			default:
				later = append(later, c)
			}
		}
		if p.leads() {
			s.steps = append(s.steps, Step{Op: SetSession, PID: p.pid})
			p.nowSession, p.nowGroup = p.pid, p.pid
			s.join(p)
		}
		for _, c := range later {
			if c.born == anySession || c.born == p.nowSession {
				s.child(c, p)
				queue = append(queue, c)
			} else {
				waiting = append(waiting, c)
			}
		}
	}
	return waiting
}

func (s *shaper) child(c, p *node) {
	by := p
	if f := s.shares.sister(c, p); f != nil {
		by = f
	}
	c.nowSession, c.nowGroup = by.nowSession, by.nowGroup
	s.made(c, by, Step{Op: Fork, PID: c.pid, By: by.pid, Sibling: by != p})
}

// made adds the step that makes a process: by another of the tree, or by one that has nothing to share.
func (s *shaper) made(n, by *node, step Step) {
	born := s.shares.share(n, by, &step)
	s.steps = append(s.steps, step)
	if s.shares.early(n.task) {
		steps, problems := birthsOf(n.task, born)
		s.steps = append(s.steps, steps...)
		for _, problem := range problems {
			s.shares.problems = append(s.shares.problems, func() { s.r.Unsupported(images.CoreName(problem.tid), "%s", problem) })
		}
	}
	n.made = true
	if !n.leads() {
		s.join(n)
	}
}

// join adds a process to those that can fork others into its session.
func (s *shaper) join(n *node) {
	sess := s.sessions[n.nowSession]
	if sess == nil {
		sess = &session{}
		s.sessions[n.nowSession] = sess
	}
	sess.members = append(sess.members, n)
}

// enter makes a process that its parent cannot fork: by a sibling, or as an orphan. It returns the descendants that are left
// over, and whether there was a way.
func (s *shaper) enter(n *node) (waiting []*node, done bool) {
	sess := s.sessions[n.born]
	if sess == nil {
		return nil, false
	}
	for _, f := range sess.members {
		s.tangle++
		if f.parent == n.parent {
			n.nowSession, n.nowGroup = f.nowSession, f.nowGroup
			return s.fork(n, f, Step{Op: Fork, PID: n.pid, By: f.pid, Sibling: true}), true
		}
	}
	for _, f := range sess.members {
		s.tangle += f.depth
		if s.tangle > maxTangle {
			return nil, false
		}
		if !n.parent.above(f) {
			continue
		}
		s.anon--
		s.steps = append(s.steps, Step{Op: Fork, PID: s.anon, By: f.pid, Helper: true}, Step{Op: Adopt, PID: n.parent.pid})
		n.nowSession, n.nowGroup = f.nowSession, f.nowGroup
		s.made(n, nil, Step{Op: Fork, PID: n.pid, By: s.anon})
		s.steps = append(s.steps, Step{Op: Dismiss, PID: s.anon, By: f.pid}, Step{Op: Unadopt, PID: n.parent.pid})
		return s.descend(n), true
	}
	return nil, false
}

// lead makes a helper that leads one of the sessions whose leader is gone and that somebody has to be born in. It becomes a child
// of the deepest process that waits for a child in that session; for the others it can make orphans.
func (s *shaper) lead(waiting []*node) bool {
	for _, n := range waiting {
		sess := s.sessions[n.born]
		if n.born == outside || sess == nil || sess.leader != nil {
			continue
		}
		parent := n.parent
		for _, m := range waiting {
			if m.born == n.born && m.parent.depth > parent.depth {
				parent = m.parent
			}
		}
		h := &node{pid: n.born, parent: parent, depth: parent.depth + 1, session: n.born, group: n.born, nowSession: n.born, nowGroup: n.born, made: true}
		s.steps = append(s.steps, Step{Op: Fork, PID: h.pid, By: parent.pid, Helper: true}, Step{Op: SetSession, PID: h.pid})
		sess.leader = h
		s.helpers = append(s.helpers, h)
		s.join(h)
		return true
	}
	return false
}
