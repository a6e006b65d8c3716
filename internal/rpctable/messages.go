package rpctable

// Messages are the messages of the RPC, each after those that it contains.
func Messages() []MessageType {
	return []MessageType{
		{Name: "criu_page_server_info", Go: "PageServerInfo", Help: "says where a page server is",
			Fields: []Field{
				{Name: "address", Num: 1, Kind: String, Help: "host name or IP address"},
				{Name: "port", Num: 2, Kind: Int32, Help: "TCP port; 0 lets the server choose"},
				{Name: "pid", Num: 3, Kind: Int32, Help: "pid of a server that was started"},
				{Name: "fd", Num: 4, Kind: Int32, Help: "connected socket, as a descriptor of the peer's (swrk only)"},
			}},
		{Name: "criu_veth_pair", Go: "VethPair", Help: "names the outer end of a veth device",
			Fields: []Field{
				{Name: "if_in", Num: 1, Kind: String, Card: Required, Help: "name inside"},
				{Name: "if_out", Num: 2, Kind: String, Card: Required, Help: "name outside"},
			}},
		{Name: "ext_mount_map", Go: "ExtMountMap", Help: "says what stands behind an external mount",
			Fields: []Field{
				{Name: "key", Num: 1, Kind: String, Card: Required, Help: "mount point at the dump, its name at the restore"},
				{Name: "val", Num: 2, Kind: String, Card: Required, Help: "its name at the dump, mount point at the restore"},
			}},
		{Name: "join_namespace", Go: "JoinNamespace", Help: "names a namespace to join",
			Fields: []Field{
				{Name: "ns", Num: 1, Kind: String, Card: Required, Help: "kind: ipc, net, time, user or uts"},
				{Name: "ns_file", Num: 2, Kind: String, Card: Required, Help: "a pid, or the path of a namespace file"},
				{Name: "extra_opt", Num: 3, Kind: String, Help: "UID,GID for a user namespace"},
			}},
		{Name: "inherit_fd", Go: "InheritFD", Help: "lets an open file stand in for a dumped one",
			Fields: []Field{
				{Name: "key", Num: 1, Kind: String, Card: Required, Help: "the dumped file, such as pipe:[1234]"},
				{Name: "fd", Num: 2, Kind: Int32, Card: Required, Help: "descriptor in the peer's own table"},
			}},
		{Name: "cgroup_root", Go: "CgroupRoot", Help: "roots a cgroup controller elsewhere",
			Fields: []Field{
				{Name: "ctrl", Num: 1, Kind: String, Help: "controller; all that have no root of their own where absent"},
				{Name: "path", Num: 2, Kind: String, Card: Required, Help: "the new root"},
			}},
		{Name: "unix_sk", Go: "UnixSk", Help: "names a unix socket",
			Fields: []Field{
				{Name: "inode", Num: 1, Kind: Uint32, Card: Required, Help: "its inode"},
			}},
		{Name: "criu_opts", Go: "Opts", Help: "holds the options of a request", Fields: Options()},
		{Name: "criu_dump_resp", Go: "DumpResp", Help: "answers a dump",
			Fields: []Field{
				{Name: "restored", Num: 1, Kind: Bool, Help: "true in the restored copy of a process that dumped itself"},
			}},
		{Name: "criu_restore_resp", Go: "RestoreResp", Help: "answers a restore",
			Fields: []Field{
				{Name: "pid", Num: 1, Kind: Int32, Card: Required, Help: "pid of the restored root task, in the peer's pid namespace"},
			}},
		{Name: "criu_notify", Go: "Notify", Help: "reports a stage",
			Fields: []Field{
				{Name: "script", Num: 1, Kind: String, Help: "name of the stage"},
				{Name: "pid", Num: 2, Kind: Int32, Help: "root task, in the stages that have one"},
			}},
		{Name: "criu_features", Go: "Features", Help: "asks for, or tells, what the kernel and the peer can do",
			Fields: []Field{
				{Name: "mem_track", Num: 1, Kind: Bool, Help: "tracking of memory changes"},
				{Name: "lazy_pages", Num: 2, Kind: Bool, Help: "restoring memory on demand"},
				{Name: "pidfd_store", Num: 3, Kind: Bool, Since: "3.16", Help: "pidfds that tell reused pids"},
				{Name: "mem_compression", Num: 4, Kind: Bool, Since: "4.3", Help: "compressed page images"},
			}},
		{Name: "criu_req", Go: "Req", Help: "is a request, or the answer to a notification",
			Fields: []Field{
				{Name: "type", Num: 1, Kind: Enum, Of: "criu_req_type", Card: Required, Help: "what is asked"},
				{Name: "opts", Num: 2, Kind: Message, Of: "criu_opts", Help: "options"},
				{Name: "notify_success", Num: 3, Kind: Bool, Help: "in an answer to a notification: go on"},
				{Name: "keep_open", Num: 4, Kind: Bool, Help: "more requests follow on this conversation"},
				{Name: "features", Num: 5, Kind: Message, Of: "criu_features", Help: "features to check"},
				{Name: "pid", Num: 6, Kind: Uint32, Help: "process to wait for"},
			}},
		{Name: "criu_version", Go: "Version", Help: "is the peer's version",
			Fields: []Field{
				{Name: "major_number", Num: 1, Kind: Int32, Card: Required, Help: "the 4 of 4.2.1"},
				{Name: "minor_number", Num: 2, Kind: Int32, Card: Required, Help: "the 2 of 4.2.1"},
				{Name: "gitid", Num: 3, Kind: String, Help: "set when built from an untagged tree"},
				{Name: "sublevel", Num: 4, Kind: Int32, Help: "the 1 of 4.2.1"},
				{Name: "extra", Num: 5, Kind: Int32, Help: "a fourth number"},
				{Name: "name", Num: 6, Kind: String, Help: "the release's name"},
			}},
		{Name: "criu_resp", Go: "Resp", Help: "is a response, or a notification",
			Fields: []Field{
				{Name: "type", Num: 1, Kind: Enum, Of: "criu_req_type", Card: Required, Help: "the request that is answered, or NOTIFY"},
				{Name: "success", Num: 2, Kind: Bool, Card: Required, Help: "whether it was done"},
				{Name: "dump", Num: 3, Kind: Message, Of: "criu_dump_resp", Help: "for a dump"},
				{Name: "restore", Num: 4, Kind: Message, Of: "criu_restore_resp", Help: "for a restore"},
				{Name: "notify", Num: 5, Kind: Message, Of: "criu_notify", Help: "for a notification"},
				{Name: "ps", Num: 6, Kind: Message, Of: "criu_page_server_info", Help: "for a page server"},
				{Name: "cr_errno", Num: 7, Kind: Int32, Help: "errno that tells the failure, where there is one"},
				{Name: "features", Num: 8, Kind: Message, Of: "criu_features", Help: "for a feature check"},
				{Name: "cr_errmsg", Num: 9, Kind: String, Help: "the first error line of the peer's log"},
				{Name: "version", Num: 10, Kind: Message, Of: "criu_version", Help: "for a version"},
				{Name: "status", Num: 11, Kind: Int32, Help: "wait status, for WAIT_PID"},
			}},
	}
}

// Enums are the enums of the RPC.
func Enums() []EnumType {
	return []EnumType{
		{Name: "criu_req_type", Go: "ReqType", Help: "says what a request asks",
			Values: []EnumValue{
				{Name: "EMPTY", Num: 0, Go: "Empty", Help: "nothing; the type of the answer to what the peer did not understand"},
				{Name: "DUMP", Num: 1, Go: "Dump", Help: "checkpoint a process tree"},
				{Name: "RESTORE", Num: 2, Go: "Restore", Help: "restore a process tree"},
				{Name: "CHECK", Num: 3, Go: "Check", Help: "check that the kernel has what is needed"},
				{Name: "PRE_DUMP", Num: 4, Go: "PreDump", Help: "dump memory only, and stay for the next round"},
				{Name: "PAGE_SERVER", Num: 5, Go: "PageServer", Help: "start a page server"},
				{Name: "NOTIFY", Num: 6, Go: "Notify", Help: "a notification, or the answer to one"},
				{Name: "CPUINFO_DUMP", Num: 7, Go: "CPUInfoDump", Help: "write the CPU's capabilities into an image"},
				{Name: "CPUINFO_CHECK", Num: 8, Go: "CPUInfoCheck", Help: "compare the CPU with such an image"},
				{Name: "FEATURE_CHECK", Num: 9, Go: "FeatureCheck", Help: "ask for features"},
				{Name: "VERSION", Num: 10, Go: "Version", Help: "ask for the version"},
				{Name: "WAIT_PID", Num: 11, Go: "WaitPID", Help: "wait for a page server that is the peer's child"},
				{Name: "PAGE_SERVER_CHLD", Num: 12, Go: "PageServerChild", Help: "start a page server as the peer's child"},
				{Name: "SINGLE_PRE_DUMP", Num: 13, Go: "SinglePreDump", Help: "dump memory only, once"},
			}},
		{Name: "criu_cg_mode", Go: "CgroupMode", Help: "says how cgroups are handled",
			Values: []EnumValue{
				{Name: "IGNORE", Num: 0, Go: "Ignore", Word: "ignore", Help: "pretend that there are none"},
				{Name: "CG_NONE", Num: 1, Go: "None", Word: "none", Help: "restore no properties; the cgroups must exist"},
				{Name: "PROPS", Num: 2, Go: "Props", Word: "props", Help: "restore properties; the cgroups must exist"},
				{Name: "SOFT", Num: 3, Go: "Soft", Word: "soft", Help: "restore the properties of cgroups that the restore made"},
				{Name: "FULL", Num: 4, Go: "Full", Word: "full", Help: "restore all cgroups and properties"},
				{Name: "STRICT", Num: 5, Go: "Strict", Word: "strict", Help: "restore all from scratch; none may exist"},
				{Name: "DEFAULT", Num: 6, Go: "Default", Help: "the peer's default"},
			}},
		{Name: "criu_network_lock_method", Go: "NetworkLock", Help: "says how the network is locked",
			Values: []EnumValue{
				{Name: "IPTABLES", Num: 1, Go: "Iptables", Word: "iptables", Help: "by iptables rules"},
				{Name: "NFTABLES", Num: 2, Go: "Nftables", Word: "nftables", Help: "by nftables rules"},
				{Name: "SKIP", Num: 3, Go: "Skip", Word: "skip", Since: "3.19", Help: "not at all"},
			}},
		{Name: "criu_pre_dump_mode", Go: "PreDumpMode", Help: "says how a pre-dump reads memory",
			Values: []EnumValue{
				{Name: "SPLICE", Num: 1, Go: "Splice", Word: "splice", Help: "by a parasite that splices it into pipes"},
				{Name: "VM_READ", Num: 2, Go: "Read", Word: "read", Help: "by process_vm_readv(2), after the thaw"},
			}},
		{Name: "criu_image_io_mode", Go: "ImageIOMode", Help: "says how page images are read and written",
			Values: []EnumValue{
				{Name: "IMAGE_IO_WRITEBACK", Num: 0, Go: "Writeback", Word: "writeback", Help: "through the page cache"},
				{Name: "IMAGE_IO_DIRECT", Num: 1, Go: "Direct", Word: "direct", Help: "around it, with O_DIRECT"},
			}},
	}
}
