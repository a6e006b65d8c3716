//go:build amd64

package remote

// Disturbed is the page that Enter writes to. What is in it has to be read before, where it matters.
func (p *Process) Disturbed() uint64 { return p.bootAt &^ (pageSize - 1) }
