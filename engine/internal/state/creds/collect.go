//go:build amd64

package creds

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/proc"
)

// Collect reads the status of each thread, and asks for the securebits.
func Collect(t *collect.Tree) error {
	for th := range t.Threads() {
		s, err := th.Status()
		if err != nil {
			return err
		}
		th.Snapshot.Creds = of(s)
		th.Ask(func(b *collect.Batch) {
			call := b.Call(unix.SYS_PRCTL, unix.PR_GET_SECUREBITS)
			b.Then(func(r *collect.Results) error {
				bits, err := r.Value(call)
				if err != nil {
					return fmt.Errorf("prctl(PR_GET_SECUREBITS): %w", err)
				}
				th.Snapshot.Creds.SecureBits = uint32(bits)
				return nil
			})
		})
	}
	return nil
}

// of returns what /proc tells of a thread: all but the securebits.
func of(s *proc.Status) snapshot.Credentials {
	return snapshot.Credentials{
		UID: s.UID.Real, EUID: s.UID.Effective, SUID: s.UID.Saved, FSUID: s.UID.FS,
		GID: s.GID.Real, EGID: s.GID.Effective, SGID: s.GID.Saved, FSGID: s.GID.FS, Groups: s.Groups,
		Inheritable: snapshot.Capabilities(s.CapInh), Permitted: snapshot.Capabilities(s.CapPrm), Effective: snapshot.Capabilities(s.CapEff),
		Bounding: snapshot.Capabilities(s.CapBnd), Ambient: snapshot.Capabilities(s.CapAmb), NoNewPrivs: s.NoNewPrivs,
	}
}
