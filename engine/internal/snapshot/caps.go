package snapshot

import (
	"strconv"
	"strings"
)

var capabilityNames = [...]string{"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
	"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"}

// String returns the names, "CAP_SETUID CAP_SETGID", or "none".
func (c Capabilities) String() string {
	var all []string
	for n := range 64 {
		switch {
		case c>>n&1 == 0:
		case n < len(capabilityNames):
			all = append(all, "CAP_"+capabilityNames[n])
		default:
			all = append(all, "capability "+strconv.Itoa(n))
		}
	}
	if all == nil {
		return "none"
	}
	return strings.Join(all, " ")
}
