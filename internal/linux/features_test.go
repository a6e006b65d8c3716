package linux

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The probes answer, and answer the same again. What they find depends on the kernel, but for what every kernel has that the
// tests run on.
func TestFeatureProbes(t *testing.T) {
	k := new(Kernel)
	for name, ask := range map[string]func() (Answer, error){
		"pidfd_open": k.HasPidfdOpen, "clone3(set_tid)": k.HasSetTID, "kcmp": k.HasKcmp, "kcmp(KCMP_EPOLL_TFD)": k.HasKcmpEpoll,
		"PR_SET_MM_MAP": k.HasMemoryMap, "timer ids": k.HasTimerIDs, "PAGE_IS_GUARD": k.HasGuardScan,
		"PAGEMAP_SCAN": k.HasPagemapScan, "pidfd_getfd": k.HasPidfdGetfd,
	} {
		first, err := ask()
		if (first == Unknown) != (err != nil) {
			t.Errorf("%s: %v, %v", name, first, err)
		}
		if again, _ := ask(); again != first {
			t.Errorf("%s: %v, and then %v", name, first, again)
		}
	}
	for name, ask := range map[string]func() (Answer, error){"pidfd_open": k.HasPidfdOpen, "clone3(set_tid)": k.HasSetTID} {
		if a, err := ask(); a != Yes {
			t.Errorf("%s: %v, %v", name, a, err)
		}
	}
	// An answer is remembered; a probe that could not be made is not.
	calls := 0
	k = &Kernel{Step: func(string) error {
		calls++
		return unix.EIO
	}}
	for range 2 {
		if a, err := k.HasGuardScan(); a != Unknown || err == nil {
			t.Errorf("a probe that fails: %v, %v", a, err)
		}
	}
	if calls != 2 {
		t.Errorf("%d calls of 2 probes that failed", calls)
	}
}
