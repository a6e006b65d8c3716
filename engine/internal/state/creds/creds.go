// Package creds is the state "who threads are": users, groups, capabilities, securebits, no_new_privs, labels of security
// modules. In images it is in thread_core of core-TID.img.
//
//   - Collect: status of each thread, and securebits by prctl in its batch.
//   - Apply late, since what comes after it is done with fewer rights, in this order: inheritable capabilities, the bounding set,
//     groups, group ids, keep-caps, user ids, file system ids, ambient capabilities, securebits, the other capabilities, no_new_privs.
//     Changing ids clears the parent-death signal and dumpable, which come after.
package creds

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// maxGroups is the kernel's NGROUPS_MAX.
const maxGroups = 65536

// Encode writes the credentials.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for t := range to.Threads(from) {
		c := &t.Creds
		e := &entry.Creds{
			UID: c.UID, EUID: c.EUID, SUID: c.SUID, FSUID: c.FSUID, GID: c.GID, EGID: c.EGID, SGID: c.SGID, FSGID: c.FSGID,
			CapInh: words(c.Inheritable), CapPrm: words(c.Permitted), CapEff: words(c.Effective), CapBnd: words(c.Bounding), CapAmb: words(c.Ambient),
			Secbits: c.SecureBits, Groups: c.Groups, ApparmorData: c.AppArmor,
		}
		if c.NoNewPrivs {
			e.NoNewPrivs = new(uint32(1))
		}
		if c.LSMProfile != "" {
			e.LSMProfile = &c.LSMProfile
		}
		if c.LSMSockCreate != "" {
			e.LSMSockcreate = &c.LSMSockCreate
		}
		t.Core.ThreadCore.Creds = e
	}
}

func words(c snapshot.Capabilities) []uint32 { return []uint32{uint32(c), uint32(c >> 32)} }

// Decode reads the credentials.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for t := range from.Threads(to) {
		e := t.Core.ThreadCore.Creds
		if e == nil {
			r.Unsupported(t.Image, "credentials are missing; CRIU before 2.0 had them elsewhere")
			continue
		}
		r.Unknown(t.Image, e, e.Unknown)
		c := snapshot.Credentials{
			UID: e.UID, EUID: e.EUID, SUID: e.SUID, FSUID: e.FSUID, GID: e.GID, EGID: e.EGID, SGID: e.SGID, FSGID: e.FSGID,
			SecureBits: e.Secbits, Groups: e.Groups, NoNewPrivs: e.GetNoNewPrivs() != 0,
			LSMProfile: e.GetLSMProfile(), LSMSockCreate: e.GetLSMSockcreate(), AppArmor: e.ApparmorData,
		}
		if len(c.Groups) > maxGroups {
			r.Damaged(t.Image, "%d groups, at most %d can be", len(c.Groups), maxGroups)
		}
		for _, set := range []struct {
			name string
			from []uint32
			to   *snapshot.Capabilities
		}{
			{"inheritable", e.CapInh, &c.Inheritable}, {"permitted", e.CapPrm, &c.Permitted}, {"effective", e.CapEff, &c.Effective},
			{"bounding", e.CapBnd, &c.Bounding}, {"ambient", e.CapAmb, &c.Ambient},
		} {
			switch len(set.from) {
			case 2:
				*set.to = snapshot.Capabilities(set.from[0]) | snapshot.Capabilities(set.from[1])<<32
			case 0:
				if set.to == &c.Ambient {
					continue // CRIU before 3.4 has none
				}
				fallthrough
			default:
				r.Damaged(t.Image, "%s capabilities of %d words, want 2", set.name, len(set.from))
			}
		}
		if c.LSMProfile != "" || c.LSMSockCreate != "" || len(c.AppArmor) > 0 {
			r.Unsupported(t.Image, "it has the security label %q", c.LSMProfile)
		}
		if c.Effective&^c.Permitted != 0 || c.Ambient&^(c.Permitted&c.Inheritable) != 0 {
			r.Damaged(t.Image, "effective or ambient capabilities that are not permitted")
		}
		t.Creds = c
	}
}
