//go:build amd64

package engine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
	"stasis.example/internal/linux"
)

// need says how much the engine depends on something.
type need int

const (
	unused   need = iota // it has no use for it yet
	extra                // it does more, or does it faster, where it is there
	required             // it does not work without
)

// A feature is something that the kernel may have.
type feature struct {
	name  string // as CRIU calls it, "" where CRIU has no name for it
	what  string // for people
	since string // the first Linux that has it, with what it has to be built with
	need  need
	// without says what there is not where the kernel lacks an extra.
	without string
	ask     func(*linux.Kernel) (linux.Answer, error) // nil for what the engine has no use for
}

// features returns everything that the engine asks for, and every name that CRIU 4.2 knows.
func features() []feature {
	yes := func(ask func(*linux.Kernel) (linux.Answer, error), f feature) feature {
		f.ask = ask
		return f
	}
	rows := []feature{
		yes((*linux.Kernel).HasPidfdOpen, feature{what: "pidfd_open", since: "5.3", need: required}),
		yes((*linux.Kernel).HasPidfdGetfd, feature{what: "pidfd_getfd", since: "5.6", need: required}),
		yes((*linux.Kernel).HasKcmp, feature{what: "kcmp", since: "3.5, with CONFIG_KCMP", need: required}),
		yes((*linux.Kernel).HasMemoryMap, feature{what: "prctl(PR_SET_MM_MAP)", since: "3.18, with CONFIG_CHECKPOINT_RESTORE", need: required}),
		yes(shows("/proc/self/pagemap"), feature{what: "/proc/PID/pagemap", since: "2.6.25, with CONFIG_PROC_PAGE_MONITOR", need: required}),
		yes(shows("/proc/thread-self/children"), feature{what: "/proc/PID/task/TID/children", since: "3.5, with CONFIG_PROC_CHILDREN", need: required}),
		yes(shows("/proc/self/map_files"), feature{what: "/proc/PID/map_files", since: "4.3", need: required}),

		yes(tells("/proc/self/fdinfo/0", "mnt_id:"), feature{name: "mnt_id", what: "mnt_id in /proc/PID/fdinfo", since: "3.15", need: required}),
		yes((*linux.Kernel).HasSetTID, feature{name: "clone3_set_tid", what: "clone3 with set_tid", since: "5.5", need: required}),
		yes(tells("/proc/self/status", "NSpid:"), feature{name: "ns_pid", what: "NSpid in /proc/PID/status", since: "4.1", need: required}),
		yes((*linux.Kernel).HasKcmpEpoll, feature{name: "kcmp_epoll", what: "kcmp(KCMP_EPOLL_TFD)", since: "4.13", need: required}),
		yes((*linux.Kernel).HasMapVDSO, feature{name: "can_map_vdso", what: "arch_prctl(ARCH_MAP_VDSO_64)", since: "4.8, with CONFIG_CHECKPOINT_RESTORE", need: required}),
		yes(both(shows("/proc/self/timers"), tellsTimerfd), feature{name: "timerfd", what: "the settings of a timerfd in /proc/PID/fdinfo", since: "3.17", need: required}),
		yes(both((*linux.Kernel).HasMemoryMap, since(4, 3)), feature{name: "seccomp_suspend", what: "PTRACE_O_SUSPEND_SECCOMP", since: "4.3, with CONFIG_CHECKPOINT_RESTORE", need: required}),
		yes(both((*linux.Kernel).HasMemoryMap, since(5, 13)), feature{name: "get_rseq_conf", what: "PTRACE_GET_RSEQ_CONFIGURATION", since: "5.13", need: required}),
		yes(shows("/proc/self/loginuid"), feature{name: "loginuid", what: "/proc/PID/loginuid", since: "2.6.12, with CONFIG_AUDIT", need: extra, without: "there are no login uids to be kept"}),
		yes((*linux.Kernel).HasPagemapScan, feature{name: "pagemap_scan", what: "ioctl(PAGEMAP_SCAN)", since: "6.7", need: extra, without: "pages are found by /proc/PID/pagemap, which takes longer"}),
		yes((*linux.Kernel).HasGuardScan, feature{name: "pagemap_scan_guard_pages", what: "PAGEMAP_SCAN for guard pages", since: "6.15", need: extra, without: "guard pages (MADV_GUARD_INSTALL) are not seen"}),
		yes(shows("/proc/self/timens_offsets"), feature{name: "timens", what: "time namespaces", since: "5.6, with CONFIG_TIME_NS", need: extra, without: "restored processes see the machine's clocks, and are refused where those would go back"}),
		yes((*linux.Kernel).HasTimerIDs, feature{name: "timer_cr_ids", what: "prctl(PR_TIMER_CREATE_RESTORE_IDS)", since: "6.16", need: extra, without: "POSIX timers get their numbers by counting up to them"}),
	}
	for _, lack := range []struct{ name, what string }{
		{"mem_dirty_track", "pre-dumps"}, {"aio_remap", "asynchronous I/O (io_setup)"}, {"tun", "network devices"}, {"tun_ns", "network namespaces of a tree's own"},
		{"userns", "user namespaces of a tree's own"}, {"fdinfo_lock", "file locks"}, {"seccomp_filters", "seccomp filters"},
		{"cgroupns", "cgroup namespaces of a tree's own"}, {"autofs", "mounts"}, {"tcp_half_closed", "TCP connections"}, {"compat_cr", "32-bit programs"},
		{"uffd", "lazy pages"}, {"uffd-noncoop", "lazy pages"}, {"sk_ns", "sockets"}, {"sk_unix_file", "sockets"}, {"net_diag_raw", "sockets"},
		{"nsid", "network namespaces of a tree's own"}, {"link_nsid", "network namespaces of a tree's own"},
		{"external_net_ns", "network namespaces of a tree's own"}, {"newifindex", "network devices"}, {"nftables", "network namespaces of a tree's own"},
		{"has_ipt_legacy", "network namespaces of a tree's own"}, {"pidfd_store", "a store of pidfds"}, {"apparmor_stacking", "security profiles"},
		{"network_lock_nftables", "TCP connections"}, {"sockopt_buf_lock", "sockets"}, {"memfd_hugetlb", "memory files of huge pages"},
		{"move_mount_set_group", "mount namespaces of a tree's own"}, {"openat2", "files that need openat2"}, {"ipv6_freebind", "sockets"},
		{"overlayfs_maps", "a way of its own to look at mapped files of an overlayfs"}, {"breakpoints", "hardware breakpoints"},
	} {
		rows = append(rows, feature{name: lack.name, what: lack.what})
	}
	return rows
}

// A Feature is the engine's answer to a name that CRIU's `check --feature` knows.
type Feature struct {
	Name string
	// Has: the kernel has it, and the engine makes use of it.
	Has bool
	// Known is false where nobody could find out; then Why says what was in the way.
	Known bool
	// Why says what there is not where the answer is no.
	Why string
}

// FeatureNames returns the names that Feature knows: those of CRIU 4.2.
func FeatureNames() []string {
	var names []string
	for _, f := range features() {
		if f.name != "" {
			names = append(names, f.name)
		}
	}
	return names
}

// Feature answers for this engine, on this kernel; ok is false for a name that there is not.
func (e *Engine) Feature(name string) (answer Feature, ok bool) {
	i := slices.IndexFunc(features(), func(f feature) bool { return f.name == name && name != "" })
	if i < 0 {
		return Feature{}, false
	}
	f := features()[i]
	answer = Feature{Name: name, Known: true}
	if f.ask == nil {
		answer.Why = "the built-in engine does not have " + f.what
		return answer, true
	}
	switch a, err := f.ask(e.kernel); a {
	case linux.Yes:
		answer.Has = true
	case linux.No:
		answer.Why = f.missing()
	default:
		answer.Known, answer.Why = false, fmt.Sprintf("the probe for %s failed: %v", f.what, err)
	}
	return answer, true
}

// missing says that the kernel lacks a feature, and which one has it.
func (f *feature) missing() string {
	version, config, built := strings.Cut(f.since, ", with ")
	if built {
		return fmt.Sprintf("this kernel lacks %s, which Linux %s has where it is built with %s", f.what, version, config)
	}
	return fmt.Sprintf("this kernel lacks %s, which Linux %s has", f.what, version)
}

// featureCheck answers a request for what the engine can do: of pre-dumps, lazy pages and the like nothing yet.
func (e *Engine) featureCheck(asked *rpc.Features) (*rpc.Resp, error) {
	if asked == nil {
		return nil, fmt.Errorf("a question for features that names none: %w", unix.EBADRQC)
	}
	answer := &rpc.Features{}
	for _, f := range []struct {
		asked *bool
		name  string
		at    **bool
	}{
		{asked.MemTrack, "mem_dirty_track", &answer.MemTrack}, {asked.LazyPages, "uffd", &answer.LazyPages},
		{asked.PidfdStore, "pidfd_store", &answer.PidfdStore}, {asked.MemCompression, "", &answer.MemCompression},
	} {
		if value(f.asked) {
			has, _ := e.Feature(f.name)
			*f.at = new(has.Has)
		}
	}
	return &rpc.Resp{Type: rpc.ReqFeatureCheck, Success: true, Features: answer}, nil
}

// The probes that only look at /proc.

func shows(file string) func(*linux.Kernel) (linux.Answer, error) {
	return func(*linux.Kernel) (linux.Answer, error) {
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			return linux.No, nil
		} else if err != nil {
			return linux.Unknown, err
		}
		return linux.Yes, nil
	}
}

func tells(file, word string) func(*linux.Kernel) (linux.Answer, error) {
	return func(*linux.Kernel) (linux.Answer, error) {
		text, err := os.ReadFile(file)
		if err != nil {
			return linux.Unknown, err
		}
		if !bytes.Contains(text, []byte(word)) {
			return linux.No, nil
		}
		return linux.Yes, nil
	}
}

func tellsTimerfd(k *linux.Kernel) (linux.Answer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		return linux.Unknown, err
	}
	defer unix.Close(fd)
	return tells(fmt.Sprintf("/proc/self/fdinfo/%d", fd), "clockid:")(k)
}

// since answers by the kernel's version, for what nothing can be asked without a traced process.
func since(major, minor int) func(*linux.Kernel) (linux.Answer, error) {
	return func(*linux.Kernel) (linux.Answer, error) {
		var name unix.Utsname
		if err := unix.Uname(&name); err != nil {
			return linux.Unknown, err
		}
		var has [2]int
		if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &has[0], &has[1]); err != nil {
			return linux.Unknown, fmt.Errorf("the kernel calls itself %q: %w", unix.ByteSliceToString(name.Release[:]), err)
		}
		if slices.Compare(has[:], []int{major, minor}) < 0 {
			return linux.No, nil
		}
		return linux.Yes, nil
	}
}

func both(first, second func(*linux.Kernel) (linux.Answer, error)) func(*linux.Kernel) (linux.Answer, error) {
	return func(k *linux.Kernel) (linux.Answer, error) {
		if a, err := first(k); a != linux.Yes {
			return a, err
		}
		return second(k)
	}
}
