//go:build !amd64

package linux

// HasMapVDSO tells whether a process may map its vDSO where it likes, which it may on amd64 only.
func (k *Kernel) HasMapVDSO() (Answer, error) { return No, nil }
