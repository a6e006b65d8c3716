//go:build amd64

package creds

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// Bits of PR_SET_SECUREBITS.
const keepCaps = 1 << 4

// Look reads who the threads of a process are before they become who they were: copies of the program that we have started.
func Look(t *apply.Task) error {
	s, err := t.Dir.Status()
	if err != nil {
		return err
	}
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("prctl(PR_GET_SECUREBITS): %w", err)
	}
	t.Creds = of(&s)
	t.Creds.SecureBits = uint32(bits) &^ keepCaps // execve has taken this one away
	return nil
}

// Apply makes a thread who it was. It is after all that takes rights, and the process was looked at. Only what differs from what the
// thread has is asked for, so that one without rights can be restored by somebody without rights.
func Apply(th *apply.Thread) error {
	c := change{th: th, b: &th.Batch, has: th.Task.Creds, want: &th.Thread.Creds}
	if err := c.all(); err != nil {
		return fmt.Errorf("%s: %w", th.Where(), err)
	}
	return nil
}

// A change turns what a thread has into what it shall have.
type change struct {
	th   *apply.Thread
	b    *apply.Batch
	has  snapshot.Credentials // what it has when the calls so far are made
	want *snapshot.Credentials
}

func (c *change) all() error {
	if err := c.possible(); err != nil {
		return err
	}
	if c.has.Effective != c.has.Permitted && c.differs() {
		c.capset(c.has.Permitted, c.has.Permitted, c.has.Inheritable)
	}
	if c.want.Inheritable != c.has.Inheritable {
		// Before the bounding set, of which what is new in this one must be.
		c.capset(c.has.Effective, c.has.Permitted, c.want.Inheritable)
	}
	c.bounding()
	c.groups()
	c.users()
	c.ambient()
	c.secureBits()
	if c.has.Effective != c.want.Effective || c.has.Permitted != c.want.Permitted {
		c.capset(c.want.Effective, c.want.Permitted, c.want.Inheritable)
	}
	if c.want.NoNewPrivs && !c.has.NoNewPrivs {
		c.b.Do("prctl(PR_SET_NO_NEW_PRIVS)", unix.SYS_PRCTL, apply.Num(unix.PR_SET_NO_NEW_PRIVS), apply.Num(1))
	}
	return nil
}

// possible says what no call can bring about.
func (c *change) possible() error {
	if missing := c.want.Permitted &^ c.has.Permitted; missing != 0 {
		return fmt.Errorf("it had %v, which the restore does not have: start it with more capabilities: %w", missing, unix.EPERM)
	}
	if c.has.NoNewPrivs && !c.want.NoNewPrivs {
		return fmt.Errorf("it did not have no_new_privs, which the restore has and cannot shed: start it without: %w", unix.EPERM)
	}
	if missing := c.want.Bounding &^ c.has.Bounding; missing != 0 {
		c.th.Task.Tree.Note("%s: the bounding set had %v, which the restore does not have; programs that it executes cannot get them", c.th.Where(), missing)
	}
	return nil
}

// differs reports whether a right may be needed.
func (c *change) differs() bool {
	h, w := &c.has, c.want
	return h.UID != w.UID || h.EUID != w.EUID || h.SUID != w.SUID || h.FSUID != w.FSUID || h.GID != w.GID || h.EGID != w.EGID || h.SGID != w.SGID ||
		h.FSGID != w.FSGID || !slices.Equal(h.Groups, w.Groups) || h.Inheritable != w.Inheritable || h.Bounding&^w.Bounding != 0 || h.SecureBits != w.SecureBits
}

func (c *change) capset(effective, permitted, inheritable snapshot.Capabilities) {
	header := apply.Words32(unix.LINUX_CAPABILITY_VERSION_3, 0)
	e, p, i := words(effective), words(permitted), words(inheritable)
	c.b.Try("capset", needs("CAP_SETPCAP"), unix.SYS_CAPSET, header, apply.Words32(e[0], p[0], i[0], e[1], p[1], i[1]))
	c.has.Effective, c.has.Permitted, c.has.Inheritable = effective, permitted, inheritable
	c.has.Ambient &= permitted & inheritable
}

func (c *change) bounding() {
	for capability := range 64 {
		if bit := snapshot.Capabilities(1) << capability; c.has.Bounding&^c.want.Bounding&bit != 0 {
			c.b.Try("prctl(PR_CAPBSET_DROP) of "+bit.String(), needs("CAP_SETPCAP"), unix.SYS_PRCTL, apply.Num(unix.PR_CAPBSET_DROP), apply.Num(capability))
		}
	}
	c.has.Bounding &= c.want.Bounding
}

func (c *change) groups() {
	h, w := &c.has, c.want
	if !slices.Equal(h.Groups, w.Groups) {
		c.b.Try("setgroups", needs("CAP_SETGID"), unix.SYS_SETGROUPS, apply.Num(len(w.Groups)), apply.Words32(w.Groups...))
	}
	if h.GID != w.GID || h.EGID != w.EGID || h.SGID != w.SGID {
		c.b.Try(fmt.Sprintf("setresgid(%d, %d, %d)", w.GID, w.EGID, w.SGID), needs("CAP_SETGID"), unix.SYS_SETRESGID, apply.Num(w.GID), apply.Num(w.EGID), apply.Num(w.SGID))
		h.FSGID = w.EGID
	}
	if h.FSGID != w.FSGID {
		c.fsid("setfsgid", "CAP_SETGID", unix.SYS_SETFSGID, w.FSGID)
	}
}

func (c *change) users() {
	h, w := &c.has, c.want
	if h.UID == w.UID && h.EUID == w.EUID && h.SUID == w.SUID && h.FSUID == w.FSUID {
		return
	}
	// Who stops to be root keeps what is permitted to it, and can make it effective again; this asks for no capability.
	c.b.Try("prctl(PR_SET_KEEPCAPS)", needs("CAP_SETPCAP, where it is locked"), unix.SYS_PRCTL, apply.Num(unix.PR_SET_KEEPCAPS), apply.Num(1))
	h.SecureBits |= keepCaps
	if h.UID != w.UID || h.EUID != w.EUID || h.SUID != w.SUID {
		c.b.Try(fmt.Sprintf("setresuid(%d, %d, %d)", w.UID, w.EUID, w.SUID), needs("CAP_SETUID"), unix.SYS_SETRESUID, apply.Num(w.UID), apply.Num(w.EUID), apply.Num(w.SUID))
		h.FSUID = w.EUID
		if h.Ambient != 0 {
			c.clearAmbient() // the kernel may have done so itself
		}
		c.capset(h.Permitted, h.Permitted, h.Inheritable)
	}
	if h.FSUID != w.FSUID {
		c.fsid("setfsuid", "CAP_SETUID", unix.SYS_SETFSUID, w.FSUID)
		c.capset(h.Permitted, h.Permitted, h.Inheritable)
	}
}

// fsid changes an id for file systems. The call does not say whether it did: what a second one answers is what the first has set.
func (c *change) fsid(what, capability string, nr uint32, id uint32) {
	const keep = ^uint32(0) // no id: nothing is changed
	c.b.Try(what, func(uint64, error) error { return nil }, nr, apply.Num(id))
	c.b.Try(what, func(now uint64, _ error) error {
		if uint32(now) != id {
			return fmt.Errorf("%d: %w (needs %s)", id, unix.EPERM, capability)
		}
		return nil
	}, nr, apply.Num(keep))
}

func (c *change) ambient() {
	if c.has.Ambient&^c.want.Ambient != 0 {
		c.clearAmbient()
	}
	for capability := range 64 {
		if bit := snapshot.Capabilities(1) << capability; c.want.Ambient&^c.has.Ambient&bit != 0 {
			c.b.Do("prctl(PR_CAP_AMBIENT_RAISE) of "+bit.String(), unix.SYS_PRCTL, apply.Num(unix.PR_CAP_AMBIENT), apply.Num(unix.PR_CAP_AMBIENT_RAISE), apply.Num(capability))
		}
	}
}

func (c *change) clearAmbient() {
	c.b.Do("prctl(PR_CAP_AMBIENT_CLEAR_ALL)", unix.SYS_PRCTL, apply.Num(unix.PR_CAP_AMBIENT), apply.Num(unix.PR_CAP_AMBIENT_CLEAR_ALL))
	c.has.Ambient = 0
}

func (c *change) secureBits() {
	switch have, want := c.has.SecureBits, c.want.SecureBits; {
	case have == want:
	case have&^keepCaps == want&^keepCaps:
		c.b.Do("prctl(PR_SET_KEEPCAPS)", unix.SYS_PRCTL, apply.Num(unix.PR_SET_KEEPCAPS), apply.Num((want&keepCaps)>>4))
	default:
		c.b.Try(fmt.Sprintf("prctl(PR_SET_SECUREBITS) of %#x", want), needs("CAP_SETPCAP, and bits that the restore has locked stay as they are"),
			unix.SYS_PRCTL, apply.Num(unix.PR_SET_SECUREBITS), apply.Num(want))
	}
}

// needs names the capability for want of which a call is refused.
func needs(capability string) func(uint64, error) error {
	return func(_ uint64, err error) error {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%w (needs %s)", err, capability)
		}
		return err
	}
}
