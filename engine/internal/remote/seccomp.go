//go:build amd64

package remote

import "fmt"

// examineSeccomp decides whether a thread with seccomp filters can be driven.
func (th *Thread) examineSeccomp(mode int) error {
	return fmt.Errorf("%w: it has a seccomp filter (mode %d), which would apply to the way back", ErrRefused, mode)
}
