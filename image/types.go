package image

import (
	"fmt"
	"strconv"
	"strings"
)

// Versions of the image format, as in inventory.img.
const (
	VersionV1   = 1 // of old CRIUs: no common magic; not read here
	VersionV1_1 = 2 // of all CRIUs of the last ten years

	// VersionStasis marks images with what no CRIU can restore, such as memory shared between processes. CRIU refuses the
	// number; it must not restore such an image wrongly.
	VersionStasis = 0x73544153
)

// Magic numbers that stand before the magic of a type.
const (
	magicCommon  = 0x54564319
	magicService = 0x55105940
)

// A Type is a kind of image file.
type Type uint8

// The types of images, in the order in which a reader of a dump might look at them.
const (
	Inventory     Type = iota + 1 // entry.Inventory
	PSTree                        // entry.PSTree
	Core                          // entry.Core; id: the thread
	IDs                           // entry.TaskKobjIDs; id: the process
	MM                            // entry.MM; id: the process
	FS                            // entry.FS; id: the process
	FDInfo                        // entry.FDInfo; id: files_id
	Files                         // entry.File
	Pagemap                       // runs of pages, see OpenPagemap; id: the process
	PagemapShmem                  // the same; id: the shared memory segment
	Pages                         // bytes; id: pages_id
	TimeNS                        // entry.TimeNS; id: the namespace
	Seccomp                       // entry.Seccomp
	Cgroup                        // entry.Cgroup
	CPUInfo                       // entry.CPUInfo
	StatsDump                     // entry.Stats
	StatsRestore                  // entry.Stats
	PipesData                     // entry.PipeData and bytes
	FIFOData                      // entry.PipeData and bytes
	RemapFilePath                 // entry.RemapFilePath
	GhostFile                     // entry.GhostFile and bytes; id: the ghost
	FileLocks                     // entry.FileLock
	TTYInfo                       // entry.TTYInfo
	TTYData                       // entry.TTYData
	MemFD                         // entry.MemFDInode
	SkQueues                      // entry.SkPacket and bytes
	TCPStream                     // entry.TCPStream and bytes; id: the inode
	BPFMapData                    // entry.BPFMapData and bytes
	Mountpoints                   // entry.Mnt; id: the namespace
	NetNS                         // entry.NetNS; id: the namespace
	NetDev                        // entry.NetDevice; id: the namespace
	UTSNS                         // entry.UTSNS; id: the namespace
	PIDNS                         // entry.PIDNS; id: the namespace
	UserNS                        // entry.UserNS; id: the namespace
	IPCVar                        // entry.IPCVar; id: the namespace
	IPCShm                        // entry.IPCShm and bytes; id: the namespace
	IPCSem                        // entry.IPCSem and bytes; id: the namespace
	IPCMsg                        // entry.IPCMsgQueue and messages; id: the namespace
	AppArmor                      // entry.AppArmor
	Autofs                        // entry.Autofs; id: the mount
	BinfmtMisc                    // entry.BinfmtMisc
	IrmapCache                    // entry.IrmapCache

	endOfTypes
)

// How a file begins.
type framing uint8

const (
	common  framing = iota // common magic, own magic, entries
	service                // service magic, own magic, entries
	single                 // own magic, entries
	raw                    // bytes
)

type typeInfo struct {
	name    string // CRIU's name of the magic
	magic   uint32
	framing framing
	before  string // file name before the id; all of it where there is none
	after   string // and after it
	verb    byte   // 'u' or 'x', 0 where there is no id
}

// The magic numbers are CRIU's; a test holds them against go-criu's list.
var types = [endOfTypes]typeInfo{
	Inventory:     {"INVENTORY", 0x58313116, single, "inventory.img", "", 0},
	PSTree:        {"PSTREE", 0x50273030, common, "pstree.img", "", 0},
	Core:          {"CORE", 0x55053847, common, "core-", ".img", 'u'},
	IDs:           {"IDS", 0x54432030, common, "ids-", ".img", 'u'},
	MM:            {"MM", 0x57492820, common, "mm-", ".img", 'u'},
	FS:            {"FS", 0x51403912, common, "fs-", ".img", 'u'},
	FDInfo:        {"FDINFO", 0x56213732, common, "fdinfo-", ".img", 'u'},
	Files:         {"FILES", 0x56303138, common, "files.img", "", 0},
	Pagemap:       {"PAGEMAP", 0x56084025, common, "pagemap-", ".img", 'u'},
	PagemapShmem:  {"PAGEMAP", 0x56084025, common, "pagemap-shmem-", ".img", 'u'},
	Pages:         {"", 0, raw, "pages-", ".img", 'u'},
	TimeNS:        {"TIMENS", 0x43114433, common, "timens-", ".img", 'u'},
	Seccomp:       {"SECCOMP", 0x64413049, common, "seccomp.img", "", 0},
	Cgroup:        {"CGROUP", 0x59383330, common, "cgroup.img", "", 0},
	CPUInfo:       {"CPUINFO", 0x61404013, common, "cpuinfo.img", "", 0},
	StatsDump:     {"STATS", 0x57093306, service, "stats-dump", "", 0},
	StatsRestore:  {"STATS", 0x57093306, service, "stats-restore", "", 0},
	PipesData:     {"PIPES_DATA", 0x56453709, common, "pipes-data.img", "", 0},
	FIFOData:      {"FIFO_DATA", 0x59333054, common, "fifo-data.img", "", 0},
	RemapFilePath: {"REMAP_FPATH", 0x59133954, common, "remap-fpath.img", "", 0},
	GhostFile:     {"GHOST_FILE", 0x52583605, common, "ghost-file-", ".img", 'x'},
	FileLocks:     {"FILE_LOCKS", 0x54323616, common, "filelocks.img", "", 0},
	TTYInfo:       {"TTY_INFO", 0x59453036, common, "tty-info.img", "", 0},
	TTYData:       {"TTY_DATA", 0x59413026, common, "tty-data.img", "", 0},
	MemFD:         {"MEMFD_INODE", 0x48453499, common, "memfd.img", "", 0},
	SkQueues:      {"SK_QUEUES", 0x56264026, common, "sk-queues.img", "", 0},
	TCPStream:     {"TCP_STREAM", 0x51465506, common, "tcp-stream-", ".img", 'x'},
	BPFMapData:    {"BPFMAP_DATA", 0x64324033, common, "bpfmap-data.img", "", 0},
	Mountpoints:   {"MNTS", 0x55563928, common, "mountpoints-", ".img", 'u'},
	NetNS:         {"NETNS", 0x55933752, common, "netns-", ".img", 'u'},
	NetDev:        {"NETDEV", 0x57373951, common, "netdev-", ".img", 'u'},
	UTSNS:         {"UTSNS", 0x54473203, common, "utsns-", ".img", 'u'},
	PIDNS:         {"PIDNS", 0x61157326, common, "pidns-", ".img", 'u'},
	UserNS:        {"USERNS", 0x55474906, common, "userns-", ".img", 'u'},
	IPCVar:        {"IPC_VAR", 0x53115007, common, "ipcns-var-", ".img", 'u'},
	IPCShm:        {"IPCNS_SHM", 0x46283044, common, "ipcns-shm-", ".img", 'u'},
	IPCSem:        {"IPCNS_SEM", 0x59573019, common, "ipcns-sem-", ".img", 'u'},
	IPCMsg:        {"IPCNS_MSG", 0x55453737, common, "ipcns-msg-", ".img", 'u'},
	AppArmor:      {"APPARMOR", 0x59423047, common, "apparmor.img", "", 0},
	Autofs:        {"AUTOFS", 0x49353943, common, "autofs-", ".img", 'u'},
	BinfmtMisc:    {"BINFMT_MISC", 0x67343323, common, "binfmt-misc.img", "", 0},
	IrmapCache:    {"IRMAP_CACHE", 0x57004059, service, "irmap-cache", "", 0},
}

func (t Type) info() typeInfo {
	if t == 0 || t >= endOfTypes {
		panic(fmt.Sprintf("image: no such type: %d", uint8(t)))
	}
	return types[t]
}

// String returns CRIU's name for the type, "CORE" for one.
func (t Type) String() string {
	if t == 0 || t >= endOfTypes {
		return "Type(" + strconv.Itoa(int(t)) + ")"
	}
	if info := types[t]; info.name != "" {
		return info.name
	}
	return "PAGES"
}

// File returns the name of the file: Core.File(7) is "core-7.img". Types that a directory has once ignore id. The zero
// Type and numbers that are no type panic.
func (t Type) File(id uint64) string {
	info := t.info()
	switch info.verb {
	case 'u':
		return info.before + strconv.FormatUint(id, 10) + info.after
	case 'x':
		return info.before + strconv.FormatUint(id, 16) + info.after
	}
	return info.before
}

// ParseFile is the reverse of Type.File: the type of a file by its name, and the id in it. It reports false for names that
// belong to no type, such as logs.
func ParseFile(name string) (t Type, id uint64, ok bool) {
	for t := Inventory; t < endOfTypes; t++ {
		info := types[t]
		if info.verb == 0 {
			if name == info.before {
				return t, 0, true
			}
			continue
		}
		digits, ok1 := strings.CutPrefix(name, info.before)
		digits, ok2 := strings.CutSuffix(digits, info.after)
		if !ok1 || !ok2 {
			continue
		}
		base := 10
		if info.verb == 'x' {
			base = 16
		}
		if id, err := strconv.ParseUint(digits, base, 64); err == nil && t.File(id) == name {
			return t, id, true
		}
	}
	return 0, 0, false
}
