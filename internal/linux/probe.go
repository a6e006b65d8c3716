package linux

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// An Answer is what a probe of the kernel found.
type Answer int

const (
	// Unknown is no answer: the probe itself could not be made. It is never remembered.
	Unknown Answer = iota
	// Yes is a feature that is there.
	Yes
	// No is a feature that is not.
	No
)

func (a Answer) String() string {
	switch a {
	case Yes:
		return "yes"
	case No:
		return "no"
	default:
		return "unknown"
	}
}

// probe returns the remembered answer to a question, or asks. A feature is absent when the call fails with an errno
// that means so.
func (k *Kernel) probe(name string, ask func() error, absent ...error) (Answer, error) {
	if k != nil {
		k.probes.mu.Lock()
		defer k.probes.mu.Unlock()
		if a, ok := k.probes.known[name]; ok {
			return a, nil
		}
	}
	answer := Yes
	if err := ask(); err != nil {
		answer = Unknown
		for _, e := range absent {
			if errors.Is(err, e) {
				answer = No
			}
		}
		if answer == Unknown {
			return Unknown, fmt.Errorf("probe for %s: %w", name, err)
		}
	}
	if k != nil {
		if k.probes.known == nil {
			k.probes.known = make(map[string]Answer)
		}
		k.probes.known[name] = answer
	}
	return answer, nil
}

// HasPagemapScan tells whether the kernel has the ioctl PAGEMAP_SCAN (Linux 6.7).
func (k *Kernel) HasPagemapScan() (Answer, error) {
	return k.probe("PAGEMAP_SCAN", func() error {
		f, err := os.Open("/proc/self/pagemap")
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = k.PagemapScan(int(f.Fd()), &PagemapScan{Start: 0, End: 0x1000, CategoryMask: PagePresent, ReturnMask: PagePresent})
		return err
	}, unix.ENOTTY, unix.EINVAL)
}

// HasPidfdGetfd tells whether the kernel has pidfd_getfd (Linux 5.6).
func (k *Kernel) HasPidfdGetfd() (Answer, error) {
	return k.probe("pidfd_getfd", func() error {
		_, err := unix.PidfdGetfd(-1, 0, 0)
		if errors.Is(err, unix.EBADF) {
			return nil
		}
		return err
	}, unix.ENOSYS)
}
