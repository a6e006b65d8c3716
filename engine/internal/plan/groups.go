package plan

import "stasis.example/engine/internal/snapshot"

// setGroups puts every process into its group. First the leaders into their own, then the members, then those leaders that have
// left for another one: a group is there as long as somebody is in it.
func (s *shaper) setGroups() {
	in := make(map[int]int) // how many are in a group now
	for _, n := range s.nodes {
		in[n.nowGroup]++
	}
	for _, h := range s.helpers {
		in[h.nowGroup]++
	}
	move := func(n *node, group int) {
		s.steps = append(s.steps, Step{Op: SetGroup, PID: n.pid, Group: group})
		in[n.nowGroup]--
		in[group]++
		n.nowGroup = group
	}
	wanted := make(map[int]int) // how many have still to come
	for _, n := range s.nodes {
		if _, is := s.groups[n.pid]; is && n.nowGroup != n.pid {
			move(n, n.pid)
		}
		if n.group != n.nowGroup {
			wanted[n.group]++
		}
	}
	for _, leaving := range []bool{false, true} {
		for _, n := range s.nodes {
			if _, leads := s.groups[n.pid]; n.group == n.nowGroup || leads != leaving {
				continue
			}
			if leaving && in[n.pid] == 1 && wanted[n.pid] > 0 {
				// Somebody will come into the group that this would be the last to leave.
				s.anon--
				s.helper(&node{pid: s.anon, parent: n, nowGroup: n.pid})
				in[n.pid]++
			}
			if n.group != outside && in[n.group] == 0 {
				h := &node{pid: n.group, parent: n, nowGroup: n.nowGroup}
				s.helper(h)
				in[h.nowGroup]++
				move(h, n.group)
			}
			wanted[n.group]--
			move(n, n.group)
		}
	}
}

func (s *shaper) helper(h *node) {
	s.steps = append(s.steps, Step{Op: Fork, PID: h.pid, By: h.parent.pid, Helper: true})
	s.helpers = append(s.helpers, h)
}

// finish lets the helpers go and the dead die. It comes before anybody is stopped: when the last tie of a group to its session
// dies, the kernel wakes those of the group that are stopped.
func (s *shaper) finish() {
	for i := len(s.helpers) - 1; i >= 0; i-- {
		h := s.helpers[i]
		s.steps = append(s.steps, Step{Op: Dismiss, PID: h.pid, By: h.parent.pid})
	}
	for _, n := range s.nodes {
		if n.task.State == snapshot.Dead {
			s.steps = append(s.steps, Step{Op: Die, PID: n.pid})
		}
	}
}
