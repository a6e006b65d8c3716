//go:build amd64

package creds

import (
	"encoding/binary"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
	"stasis.example/internal/proc"
)

// Collect reads what a process has once.
func Collect(p *remote.Process, dir proc.Dir, s *snapshot.Task) error {
	// From /proc: prlimit of a process of another user takes CAP_SYS_RESOURCE, which root in a container has not.
	limits, err := dir.Limits()
	if err != nil {
		return err
	}
	for i, l := range limits {
		s.Limits[i] = snapshot.Limit{Soft: l.Soft, Hard: l.Hard}
	}
	if s.OOMScoreAdj, err = dir.OOMScoreAdj(); err != nil {
		return err
	}
	if s.Personality, err = dir.Personality(); err != nil {
		return err
	}
	switch uid, err := dir.LoginUID(); {
	case err == nil:
		s.LoginUID = &uid
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	at, _ := p.Data()
	const membarrierGetRegistrations = 1 << 9 // Linux 6.3
	calls := []remote.Call{
		remote.NewCall(unix.SYS_PRCTL, unix.PR_GET_CHILD_SUBREAPER, at),
		remote.NewCall(unix.SYS_MEMBARRIER, membarrierGetRegistrations),
	}
	if err := errors.Join(p.Run(calls), remote.Must(calls[:1])); err != nil {
		return err
	}
	var b [4]byte
	if err := p.Read(at, b[:]); err != nil {
		return err
	}
	s.ChildSubreaper = binary.LittleEndian.Uint32(b[:]) != 0
	if calls[1].Err() == nil {
		s.Membarrier = uint32(calls[1].Ret)
	}
	return nil
}

// CollectThread reads the credentials of a thread.
func CollectThread(th *remote.Thread, dir proc.Dir, s *snapshot.Thread) error {
	st, err := dir.Status()
	if err != nil {
		return err
	}
	calls := []remote.Call{remote.NewCall(unix.SYS_PRCTL, unix.PR_GET_SECUREBITS)}
	if err := errors.Join(th.Run(calls), remote.Must(calls)); err != nil {
		return err
	}
	s.Creds = snapshot.Creds{
		UID: st.UID.Real, EUID: st.UID.Effective, SUID: st.UID.Saved, FSUID: st.UID.FS,
		GID: st.GID.Real, EGID: st.GID.Effective, SGID: st.GID.Saved, FSGID: st.GID.FS, Groups: st.Groups,
		Inheritable: st.CapInh, Permitted: st.CapPrm, Effective: st.CapEff, Bounding: st.CapBnd, Ambient: st.CapAmb,
		Securebits: uint32(calls[0].Ret), NoNewPrivs: st.NoNewPrivs,
	}
	return nil
}

// Encode puts what a process has once into its core entry.
func Encode(s *snapshot.Task, c *entry.TaskCore) {
	c.Personality = s.Personality
	c.Rlimits = &entry.TaskRlimits{}
	for _, l := range s.Limits {
		c.Rlimits.Rlimits = append(c.Rlimits.Rlimits, entry.Rlimit{Cur: l.Soft, Max: l.Hard})
	}
	c.LoginUID = s.LoginUID
	c.OOMScoreAdj = new(int32(s.OOMScoreAdj))
	c.ChildSubreaper = &s.ChildSubreaper
	if s.Membarrier != 0 {
		c.MembarrierRegistrationMask = &s.Membarrier
	}
}

// EncodeThread puts the credentials into a thread's core entry.
func EncodeThread(s *snapshot.Thread, c *entry.ThreadCore) {
	words := func(v uint64) []uint32 { return []uint32{uint32(v), uint32(v >> 32)} }
	r := &s.Creds
	c.Creds = &entry.Creds{
		UID: r.UID, EUID: r.EUID, SUID: r.SUID, FSUID: r.FSUID, GID: r.GID, EGID: r.EGID, SGID: r.SGID, FSGID: r.FSGID,
		Groups: r.Groups, CapInh: words(r.Inheritable), CapPrm: words(r.Permitted), CapEff: words(r.Effective),
		CapBnd: words(r.Bounding), CapAmb: words(r.Ambient), Secbits: r.Securebits,
	}
	if r.NoNewPrivs {
		c.Creds.NoNewPrivs = new(uint32(1))
	} else {
		c.Creds.NoNewPrivs = new(uint32(0))
	}
}
