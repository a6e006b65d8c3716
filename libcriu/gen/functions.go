package main

// function is a function of the API whose _local form is written by hand, in opts.c, conn.c, errtext.c or action.c. The
// form without _local is generated: it passes the global options object.
type function struct {
	name      string // behind criu_ and criu_local_
	ret       string
	params    []param // of the form without _local
	doc       string  // the comment in criu.h
	extension bool
}

type param struct {
	ctype string // as it is declared, with %s where the name goes
	name  string
}

func (p param) declare() string { return sprintfName(p.ctype, p.name) }

// optionFunctions are the setters whose rows in the table say CCustom, by the table's name of the C function.
func optionFunctions() map[string]function {
	fns := []function{
		{name: "set_page_server_address_port", ret: "int",
			params: []param{{"const char *%s", "address"}, {"int %s", "port"}},
			doc:    "The page server that a dump sends memory to, or that criu_page_server() starts."},
		{name: "add_veth_pair", ret: "int",
			params: []param{{"const char *%s", "in"}, {"const char *%s", "out"}},
			doc:    "The name outside for a veth device inside. Deprecated: criu_add_external(\"veth[IN]:OUT\")."},
		{name: "set_exec_cmd", ret: "int",
			params: []param{{"int %s", "argc"}, {"char *%s[]", "argv"}},
			doc:    "A command that CRIU turns into after a restore, as the parent of the restored tree."},
		{name: "add_ext_mount", ret: "int",
			params: []param{{"const char *%s", "key"}, {"const char *%s", "val"}},
			doc:    "What stands behind an external bind mount. Deprecated: criu_add_external(\"mnt[KEY]:VAL\")."},
		{name: "add_cg_root", ret: "int",
			params: []param{{"const char *%s", "ctrl"}, {"const char *%s", "path"}},
			doc:    "The root cgroup of a controller; ctrl NULL: of all that have none of their own."},
		{name: "add_inherit_fd", ret: "int",
			params: []param{{"int %s", "fd"}, {"const char *%s", "key"}},
			doc: "An open file of the caller's that stands in for a dumped one, such as \"pipe[1234]\". Only where CRIU is\n" +
				"a service binary, which inherits the descriptor; -1 otherwise."},
		{name: "add_unix_sk", ret: "int",
			params: []param{{"unsigned int %s", "inode"}},
			doc: "A unix socket whose other end is outside the tree. Sets ext_unix_sk; where that was set to false,\n" +
				"forgets all inodes and returns -1. Deprecated: criu_add_external(\"unix[INODE]\")."},
		{name: "join_ns_add", ret: "int",
			params: []param{{"const char *%s", "ns"}, {"const char *%s", "ns_file"}, {"const char *%s", "extra_opt"}},
			doc: "An existing namespace to restore into: its kind, and a pid or the path of a namespace file; extra_opt is\n" +
				"\"UID,GID\" for a user namespace, else NULL. -1 where one of the first two is NULL."},
		{name: "set_compress", ret: "int",
			params: []param{{"enum criu_compress_mode %s", "mode"}},
			doc:    "Compression of page images. CRIU_COMPRESS_OFF also forgets the next two. -EINVAL for another value."},
		{name: "set_compress_acceleration", ret: "int",
			params: []param{{"unsigned int %s", "acceleration"}},
			doc: "Speed against ratio of the compression, which this turns on. -EINVAL unless from 1 to\n" +
				"CRIU_COMPRESS_MAX_ACCELERATION."},
		{name: "set_compress_block_size", ret: "int",
			params: []param{{"unsigned int %s", "bytes"}},
			doc: "Bytes that are compressed together; turns compression on. -EINVAL unless a multiple of 4096 up to\n" +
				"CRIU_COMPRESS_MAX_BLOCK_SIZE."},
		{name: "add_plugin_option", ret: "int",
			params: []param{{"const char *%s", "option"}},
			doc:    "An option for a plugin, PLUGIN.NAME[=VALUE]; -EINVAL for another form."},
		{name: "set_notify_cb", ret: "void",
			params: []param{{"int (*%s)(char *action, criu_notify_arg_t na)", "cb"}},
			doc: "A function to call at each stage. The action goes on when it returns 0; any other value aborts the action\n" +
				"and is what it returns. NULL: notifications are asked for and agreed to. The arguments are valid during the\n" +
				"call only."},
	}
	m := make(map[string]function, len(fns))
	for _, f := range fns {
		m[f.name] = f
	}
	return m
}

// actions are the requests, and what else has both forms.
func actions() []function {
	return []function{
		{name: "set_service_address", ret: "int", params: []param{{"const char *%s", "path"}},
			doc: "The socket of a CRIU service; NULL: ./criu_service.socket."},
		{name: "set_service_fd", ret: "void", params: []param{{"int %s", "fd"}},
			doc: "A connected socket to a CRIU service. It serves one request, which closes it."},
		{name: "set_service_binary", ret: "int", params: []param{{"const char *%s", "path"}},
			doc: "A program to start as `PATH swrk FD`, looked up in $PATH where it has no slash; NULL: \"criu\", which is\n" +
				"also what is used when nothing was set."},
		{name: "check", ret: "int",
			doc: "Checks that the kernel has what CRIU needs. The only action that may come before criu_init_opts()."},
		{name: "dump", ret: "int",
			doc: "Dumps a process tree. Without a pid it is the caller that is dumped, and the restored copy returns from\n" +
				"the same call with 1."},
		{name: "pre_dump", ret: "int", doc: "Dumps memory only, once."},
		{name: "restore", ret: "int", doc: "Restores a process tree and returns the pid of its root."},
		{name: "restore_child", ret: "int",
			doc: "Restores a process tree as a child of the caller, whom waitpid() then serves. Always starts a binary: the\n" +
				"one that was set, or \"criu\" where a service was."},
		{name: "dump_iters", ret: "int", params: []param{{"int (*%s)(criu_predump_info pi)", "more"}},
			doc: "Dumps memory again and again, and then everything. After each round more() is called, with NULL for now:\n" +
				"above 0 for one more round, 0 for the final dump, below 0 to abort with that value. Needs a pid."},
		{name: "get_version", ret: "int",
			doc: "The version of the peer (which the library is not part of): major * 10000 + minor * 100 + sublevel. A peer\n" +
				"that was built between releases counts as the next minor one."},
		{name: "check_version", ret: "int", params: []param{{"int %s", "minimum"}},
			doc: "1 if the peer's version is at least minimum, 0 if not, below 0 on error."},
		{name: "feature_check", ret: "int",
			params: []param{{"struct criu_feature_check *%s", "features"}, {"size_t %s", "size"}},
			doc: "Asks for the features that are true in *features, and leaves true those that kernel and peer have. size is\n" +
				"sizeof(*features) as the program knows it; -1 for one that the library does not."},

		{name: "set_notify_cb_data", ret: "void", extension: true,
			params: []param{{"int (*%s)(char *action, criu_notify_arg_t na, void *data)", "cb"}, {"void *%s", "data"}},
			doc:    "criu_set_notify_cb() with a pointer for the callback. The last of the two that was called counts."},
		{name: "get_errmsg", ret: "const char *", extension: true,
			doc: "Why the last action failed: the peer's own message (cr_errmsg) where it sent one, else what went wrong here,\n" +
				"such as \"cannot connect to /run/criu.sock: No such file or directory\". \"\" when it did not fail. Valid until\n" +
				"the next action on these options, or their end."},
		{name: "get_log_error", ret: "const char *", extension: true,
			doc: "The first error line of the peer's log, where the last action failed and left one in the work or images\n" +
				"directory; else \"\". Valid as long as the above."},
		{name: "cpuinfo_dump", ret: "int", extension: true,
			doc: "Writes the CPU's capabilities into the images directory."},
		{name: "cpuinfo_check", ret: "int", extension: true,
			doc: "Compares the CPU with what criu_cpuinfo_dump() wrote: 0 if images from there can be restored here."},
		{name: "page_server", ret: "int", extension: true, params: []param{{"int *%s", "port"}},
			doc: "Starts a page server in the background, which writes to the images directory and listens where\n" +
				"criu_set_page_server_address_port() says (port 0: any). Returns its pid, or 0 where the peer does not tell (CRIU\n" +
				"tells of a child only), and its port in *port unless NULL. It ends with its first connection."},
		{name: "page_server_child", ret: "int", extension: true, params: []param{{"int *%s", "port"}},
			doc: "The same, as a child of the peer, which stays until criu_wait_pid() or the end of the options."},
		{name: "wait_pid", ret: "int", extension: true, params: []param{{"int %s", "pid"}, {"int *%s", "status"}},
			doc: "Waits for the page server that criu_page_server_child() started; *status is as from waitpid(). -EINVAL\n" +
				"where it had ended before, and CRIU, which then waits itself, no longer knows how."},
	}
}

// plainNames are exported, and declared by hand where they are declared at all: they have one form only, or two that differ.
func plainNames() []string {
	return []string{
		"criu_lib_version",
		"criu_init_opts", "criu_free_opts", "criu_local_init_opts", "criu_local_free_opts", "criu_free_service",
		"criu_notify_pid", "criu_get_orphan_pts_master_fd",
		"criu_local_get_orphan_pts_master_fd", // an extension
	}
}
