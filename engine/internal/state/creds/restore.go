//go:build amd64

package creds

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
	"stasis.example/internal/proc"
)

// Decode reads what a process has once from its core entry.
func Decode(c *entry.TaskCore, s *snapshot.Task) error {
	s.Personality = c.Personality
	if c.Rlimits == nil || len(c.Rlimits.Rlimits) != len(s.Limits) {
		return fmt.Errorf("core of process %d: not %d limits", s.PID, len(s.Limits))
	}
	for i, l := range c.Rlimits.Rlimits {
		s.Limits[i] = snapshot.Limit{Soft: l.Cur, Hard: l.Max}
	}
	if c.OOMScoreAdj != nil {
		s.OOMScoreAdj = int(*c.OOMScoreAdj)
	}
	s.ChildSubreaper = c.ChildSubreaper != nil && *c.ChildSubreaper
	if c.MembarrierRegistrationMask != nil {
		s.Membarrier = *c.MembarrierRegistrationMask
	}
	return nil
}

// DecodeThread reads the credentials of a thread from its core entry.
func DecodeThread(c *entry.ThreadCore, s *snapshot.Thread) error {
	r := c.Creds
	if r == nil {
		return fmt.Errorf("core of thread %d: no credentials", s.TID)
	}
	mask := func(w []uint32) (v uint64) {
		for i, half := range w[:min(len(w), 2)] {
			v |= uint64(half) << (32 * i)
		}
		return v
	}
	s.Creds = snapshot.Creds{
		UID: r.UID, EUID: r.EUID, SUID: r.SUID, FSUID: r.FSUID, GID: r.GID, EGID: r.EGID, SGID: r.SGID, FSGID: r.FSGID,
		Groups: r.Groups, Inheritable: mask(r.CapInh), Permitted: mask(r.CapPrm), Effective: mask(r.CapEff),
		Bounding: mask(r.CapBnd), Ambient: mask(r.CapAmb), Securebits: r.Secbits,
		NoNewPrivs: r.NoNewPrivs != nil && *r.NoNewPrivs != 0,
	}
	return nil
}

// Check refuses a thread whose credentials are not those of the engine itself: to take others on is still to come.
func Check(own proc.Status, s *snapshot.Thread) error {
	c := &s.Creds
	same := own.UID == proc.IDs{Real: c.UID, Effective: c.EUID, Saved: c.SUID, FS: c.FSUID} &&
		own.GID == proc.IDs{Real: c.GID, Effective: c.EGID, Saved: c.SGID, FS: c.FSGID} &&
		slices.Equal(own.Groups, c.Groups) && own.CapPrm == c.Permitted && own.CapEff == c.Effective &&
		own.CapInh == c.Inheritable && own.CapBnd == c.Bounding && own.CapAmb == c.Ambient && c.Securebits == 0
	if !same {
		return fmt.Errorf("thread %d: %w: its credentials are not the engine's own", s.TID, errors.ErrUnsupported)
	}
	return nil
}

// Apply gives a process what it has once.
func Apply(p *remote.Process, dir proc.Dir, s *snapshot.Task) error {
	a := p.NewArena()
	a.Call(unix.SYS_PERSONALITY, uint64(s.Personality))
	if s.ChildSubreaper {
		a.Call(unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1)
	}
	if s.Threads[0].Creds.NoNewPrivs {
		a.Call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
	}
	for bit := 1; bit < 32; bit++ {
		if s.Membarrier>>bit&1 != 0 {
			a.Call(unix.SYS_MEMBARRIER, 1<<bit)
		}
	}
	if err := a.Run(p.Threads[0]); err != nil {
		return err
	}
	if now, err := dir.OOMScoreAdj(); err != nil || now != s.OOMScoreAdj {
		name := fmt.Sprintf("/proc/%d/oom_score_adj", p.PID)
		if err := os.WriteFile(name, []byte(strconv.Itoa(s.OOMScoreAdj)), 0); err != nil {
			return err
		}
	}
	return nil
}

// ApplyLimits sets the limits, last of all: they must not hinder the restore.
func ApplyLimits(p *remote.Process, dir proc.Dir, s *snapshot.Task) error {
	now, err := dir.Limits()
	if err != nil {
		return err
	}
	for i, l := range s.Limits {
		if now[i] == (proc.Limit{Soft: l.Soft, Hard: l.Hard}) {
			continue
		}
		if err := unix.Prlimit(p.PID, i, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return fmt.Errorf("process %d: limit %d of %d and %d: %w", p.PID, i, l.Soft, l.Hard, err)
		}
	}
	return nil
}
