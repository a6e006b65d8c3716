package cli

import (
	"errors"
	"fmt"

	"stasis.example/criu/rpc"
	"stasis.example/internal/getopt"
)

// flagTable is every flag: criu(8)'s in the order of its groups, then our own. A test holds it against the criu that
// is installed.
func flagTable() []flag {
	var rows []flag
	for _, group := range [][]flag{
		generalFlags(), treeFlags(), resourceFlags(), networkFlags(), cgroupFlags(), namespaceFlags(), memoryFlags(),
		serverFlags(), checkFlags(), deprecatedFlags(), ownFlags(), serviceFlags(),
	} {
		rows = append(rows, group...)
	}
	return rows
}

func generalFlags() []flag {
	return []flag{
		parsed("images-dir", "DIR", []string{"images_dir_fd"}, "directory of the images (default .)",
			func(s *settings, in input) error { return s.path(&s.imagesDir, in) }).with(short('D')),
		parsed("work-dir", "DIR", []string{"work_dir_fd"}, "directory for log, pidfile and statistics (default: that of the images)",
			func(s *settings, in input) error { return s.path(&s.workDir, in) }).with(short('W')),
		parsed("log-file", "FILE", []string{"log_file", "log_to_stderr"}, "write the log to FILE, in the work directory; - is standard output",
			func(s *settings, in input) error { return s.path(&s.logFile, in) }).with(short('o')),
		forChild("log-pid", "", "a log FILE.PID of its own for each restored process").with(on("restore")),
		parsed("verbosity", "NUM", []string{"log_level"}, "level of the log: 0 nothing, 1 errors, 2 warnings (default), 3 information, 4 debug; -v adds 1",
			func(s *settings, in input) error {
				s.level = parseVerbosity(s.level, in.value, in.has)
				s.levelSet = true
				return nil
			}).with(short('v'), optional("NUM")),
		boolean("display-stats", "display_stats", func(o *rpc.Opts) **bool { return &o.DisplayStats }, "print statistics at the end"),
		ours("pidfile", "write the pid of the restored tree's root, or of the server, to FILE", func(s *settings, in input) error {
			if in.fromChild { // it writes the file as well
				return nil
			}
			return s.path(&s.pidfile, in)
		}).with(arg("FILE"), on("restore", "page-server", "service")),
		ours("action-script", "run FILE at each stage, with CRTOOLS_SCRIPT_ACTION and others in its environment", func(s *settings, in input) error {
			if !in.fromChild { // the child runs those of the file that it reads
				s.scripts = append(s.scripts, in.value)
			}
			return nil
		}).with(arg("FILE"), on("dump", "pre-dump", "restore")),
		forChild("libdir", "DIR", "directory of CRIU's plugins").with(short('L')),
		texts("plugin-option", "OPTION", "plugin_options", func(o *rpc.Opts) *[]string { return &o.PluginOptions }, "an option for a plugin, PLUGIN.NAME[=VALUE] (CRIU 4.3)").with(late),
		switchOn("unprivileged", "unprivileged", func(o *rpc.Opts) **bool { return &o.Unprivileged }, "accept what cannot be done without root").with(negatable),
		ours("config", "read options from this configuration file instead of the default ones", func(s *settings, in input) error {
			return nil // sources.go has seen to it
		}).with(arg("FILE"), func(f *flag) { f.fields = []string{"config_file"} }),
		ours("no-default-config", "do not read the default configuration files", func(s *settings, in input) error { return nil }),
		ours("help", "show this text", func(s *settings, in input) error { s.help = true; return nil }).with(short('h')),
		ours("version", "show the version", func(s *settings, in input) error { s.version = true; return nil }).with(short('V')),
		ours("close", "close the descriptor FD first", func(s *settings, in input) error {
			fd, err := parseFD(in.value)
			if err == nil && fd <= 2 {
				s.needProgram("--close of a standard stream")
			}
			return err // nothing but what is asked for is handed on to CRIU anyway
		}).with(arg("FD"), hidden),
	}
}

func treeFlags() []flag {
	return []flag{
		parsed("tree", "PID", []string{"pid"}, "the process at the root of the tree", func(s *settings, in input) (err error) {
			s.pid, err = parsePID(in.value)
			return err
		}).with(short('t'), on("dump", "pre-dump")),
		finalState("leave-running", "leave_running", "let the tree run on after the dump").with(short('R'), on("dump")),
		finalState("leave-stopped", "leave_stopped", "leave the tree stopped").with(short('s'), on("dump", "restore")),
		ours("restore-detached", "do not wait for what was restored, or served: run in the background", func(s *settings, in input) error {
			s.detach = !in.negated
			return nil
		}).with(short('d'), negatable, on("restore", "page-server", "lazy-pages", "service")),
		ours("daemon", "the same as --restore-detached", func(s *settings, in input) error {
			s.detach = !in.negated
			return nil
		}).with(negatable, on("page-server", "lazy-pages", "service")),
		ours("restore-sibling", "with --restore-detached: make the tree a child of the caller's", func(s *settings, in input) error {
			s.sibling = !in.negated
			return nil
		}).with(short('S'), negatable, on("restore"), func(f *flag) { f.fields = []string{"rst_sibling"} }),
		ours("exec-cmd", "turn into the command behind -- when the tree is restored, as its parent", func(s *settings, in input) error {
			s.execCmd = true
			return nil
		}).with(on("restore"), func(f *flag) { f.fields = []string{"exec_cmd"} }),
		boolean("shell-job", "shell_job", func(o *rpc.Opts) **bool { return &o.ShellJob }, "allow a tree that belongs to a shell's session and terminal").with(short('j')),
		parsed("timeout", "SECONDS", []string{"timeout"}, "how long collecting the tasks may take (default 10)", func(s *settings, in input) error {
			n, err := parseNumber(in.value, 1<<31-1)
			s.opts.Timeout = &n
			return err
		}),
		text("freeze-cgroup", "PATH", "freeze_cgroup", func(o *rpc.Opts) **string { return &o.FreezeCgroup }, "stop the tree by this freezer cgroup"),
		parsed("cpu-cap", "CAP", []string{"cpu_cap"}, "CPU capabilities to write or to require: cpu, fpu, ins, all, none, with ^ for the opposite",
			func(s *settings, in input) error {
				caps := uint32(capDefault)
				if s.opts.CPUCap != nil {
					caps = *s.opts.CPUCap
				}
				if !in.has {
					caps |= capAll | capImage
				} else {
					var err error
					if caps, err = parseCPUCap(caps, in.value); err != nil {
						return err
					}
				}
				s.opts.CPUCap = &caps
				return nil
			}).with(optional("CAP")),
		boolean("weak-sysctls", "weak_sysctls", func(o *rpc.Opts) **bool { return &o.WeakSysctls }, "skip sysctls that this kernel lacks"),
		text("lsm-profile", "TYPE:NAME", "lsm_profile", func(o *rpc.Opts) **string { return &o.LSMProfile }, "security profile to restore under"),
		text("lsm-mount-context", "CTX", "lsm_mount_context", func(o *rpc.Opts) **string { return &o.LSMMountContext }, "mount context that replaces the dumped ones"),
	}
}

// finalState is --leave-running or --leave-stopped, of which the last one counts.
func finalState(name, field, help string) flag {
	return flag{Option: getopt.Option{Long: name}, place: byRPC, fields: []string{field}, help: help,
		set: func(s *settings, in input) error {
			s.opts.LeaveRunning, s.opts.LeaveStopped = nil, nil
			if name == "leave-running" {
				s.opts.LeaveRunning = new(true)
			} else {
				s.opts.LeaveStopped = new(true)
			}
			return nil
		}}
}

func resourceFlags() []flag {
	return []flag{
		texts("external", "RES", "external", func(o *rpc.Opts) *[]string { return &o.External }, "a resource outside the tree, such as mnt[/data]:data"),
		parsed("inherit-fd", "fd[NUM]:RES", []string{"inherit_fd"}, "let the open file NUM stand in for the dumped RES", func(s *settings, in input) error {
			f, err := parseInherit(in.value)
			if err == nil && !in.fromChild {
				s.inherit = append(s.inherit, f)
			}
			return err
		}).with(on("restore")),
		boolean("file-locks", "file_locks", func(o *rpc.Opts) **bool { return &o.FileLocks }, "dump and restore file locks").with(short('l')),
		boolean("evasive-devices", "evasive_devices", func(o *rpc.Opts) **bool { return &o.EvasiveDevices }, "use any path to a device whose own is inaccessible"),
		boolean("link-remap", "link_remap", func(o *rpc.Opts) **bool { return &o.LinkRemap }, "link unlinked files back where possible"),
		parsed("ghost-limit", "SIZE", []string{"ghost_limit"}, "largest deleted file to put into the images (default 1M)", func(s *settings, in input) error {
			n, err := parseSize(in.value)
			s.opts.GhostLimit = &n
			return err
		}),
		forChild("ghost-fiemap", "", "find the holes of deleted files by fiemap").with(on("dump")),
		boolean("force-irmap", "force_irmap", func(o *rpc.Opts) **bool { return &o.ForceIrmap }, "resolve the names of inotify and fsnotify watches by searching"),
		texts("irmap-scan-path", "PATH", "irmap_scan_paths", func(o *rpc.Opts) *[]string { return &o.IrmapScanPaths }, "where to search for them"),
		boolean("skip-file-rwx-check", "skip_file_rwx_check", func(o *rpc.Opts) **bool { return &o.SkipFileRWXCheck }, "do not compare the permissions of files with those at the dump"),
		forChild("file-validation", "WORD", "how to tell that a file is the same: filesize or buildid").with(on("dump", "restore")),
		forChild("allow-uprobes", "", "allow trees that have a uprobes mapping").with(on("dump", "restore")),
	}
}

func networkFlags() []flag {
	return []flag{
		boolean("tcp-established", "tcp_established", func(o *rpc.Opts) **bool { return &o.TCPEstablished }, "dump and restore established TCP connections"),
		boolean("skip-in-flight", "tcp_skip_in_flight", func(o *rpc.Opts) **bool { return &o.TCPSkipInFlight }, "leave out TCP connections that are not yet established"),
		boolean("tcp-close", "tcp_close", func(o *rpc.Opts) **bool { return &o.TCPClose }, "restore TCP connections closed"),
		word("network-lock", "network_lock", func(o *rpc.Opts) **rpc.NetworkLock { return &o.NetworkLock }, map[string]rpc.NetworkLock{
			"iptables": rpc.NetworkLockIptables, "nftables": rpc.NetworkLockNftables, "skip": rpc.NetworkLockSkip,
		}, "how to lock the network: iptables (default), nftables, skip"),
	}
}

func cgroupFlags() []flag {
	modes := map[string]rpc.CgroupMode{
		"ignore": rpc.CgroupModeIgnore, "none": rpc.CgroupModeNone, "props": rpc.CgroupModeProps,
		"soft": rpc.CgroupModeSoft, "full": rpc.CgroupModeFull, "strict": rpc.CgroupModeStrict,
	}
	byWord := word("manage-cgroups", "manage_cgroups_mode", func(o *rpc.Opts) **rpc.CgroupMode { return &o.ManageCgroupsMode }, modes,
		"what to do with cgroups: soft (without a word), none, props, full, strict, ignore").with(optional("WORD"))
	withWord := byWord.set
	byWord.set = func(s *settings, in input) error {
		if !in.has {
			in.value = "soft"
		}
		return withWord(s, in)
	}
	return []flag{
		byWord,
		parsed("cgroup-root", "[CONTROLLER:]/PATH", []string{"cg_root"}, "root cgroup of a controller, or of all others", func(s *settings, in input) error {
			r, err := parseCgroupRoot(in.value)
			if err == nil && !in.fromChild {
				s.opts.CgRoot = append(s.opts.CgRoot, r)
			}
			return err
		}),
		text("cgroup-props", "TEXT", "cgroup_props", func(o *rpc.Opts) **string { return &o.CgroupProps }, "controllers and properties to dump, in CRIU's YAML form"),
		text("cgroup-props-file", "FILE", "cgroup_props_file", func(o *rpc.Opts) **string { return &o.CgroupPropsFile }, "a file with the same"),
		texts("cgroup-dump-controller", "NAME", "cgroup_dump_controller", func(o *rpc.Opts) *[]string { return &o.CgroupDumpController }, "dump this controller only"),
		text("cgroup-yard", "PATH", "cgroup_yard", func(o *rpc.Opts) **string { return &o.CgroupYard }, "where the cgroup hierarchies are mounted already"),
	}
}

func namespaceFlags() []flag {
	return []flag{
		text("root", "PATH", "root", func(o *rpc.Opts) **string { return &o.Root }, "root directory of the tree's mount namespace").with(short('r')),
		texts("skip-mnt", "PATH", "skip_mnt", func(o *rpc.Opts) *[]string { return &o.SkipMnt }, "leave this mount point out"),
		texts("enable-fs", "NAMES", "enable_fs", func(o *rpc.Opts) *[]string { return &o.EnableFS }, "file systems to accept although they are not supported, or all"),
		boolean("mntns-compat-mode", "mntns_compat_mode", func(o *rpc.Opts) **bool { return &o.MntnsCompatMode }, "use the older way of restoring mounts"),
		parsed("empty-ns", "net", []string{"empty_ns"}, "create the namespace without restoring what it holds", func(s *settings, in input) error {
			ns, err := parseEmptyNS(in.value)
			if s.opts.EmptyNS != nil {
				ns |= *s.opts.EmptyNS
			}
			s.opts.EmptyNS = &ns
			return err
		}),
		parsed("join-ns", "NS:{PID|FILE}[,UID,GID]", []string{"join_ns"}, "restore into this namespace", func(s *settings, in input) error {
			j, err := parseJoinNS(in.value)
			if err == nil && !in.fromChild {
				s.opts.JoinNS = append(s.opts.JoinNS, j)
			}
			return err
		}).with(short('J')),
	}
}

func memoryFlags() []flag {
	number := func(name, field string, most uint32, at func(o *rpc.Opts) **uint32, help string) flag {
		return parsed(name, "NUM", []string{field}, help, func(s *settings, in input) error {
			n, err := parseNumber(in.value, most)
			*at(&s.opts) = &n
			return err
		})
	}
	return []flag{
		text("prev-images-dir", "DIR", "parent_img", func(o *rpc.Opts) **string { return &o.ParentImg }, "images of the previous round, relative to --images-dir"),
		boolean("track-mem", "track_mem", func(o *rpc.Opts) **bool { return &o.TrackMem }, "have the kernel track which memory changes from now on"),
		boolean("auto-dedup", "auto_dedup", func(o *rpc.Opts) **bool { return &o.AutoDedup }, "punch pages that are superseded, or restored, out of the images"),
		word("pre-dump-mode", "pre_dump_mode", func(o *rpc.Opts) **rpc.PreDumpMode { return &o.PreDumpMode }, map[string]rpc.PreDumpMode{
			"splice": rpc.PreDumpModeSplice, "read": rpc.PreDumpModeRead,
		}, "how a pre-dump reads memory: splice (default) or read"),
		switchOn("lazy-pages", "lazy_pages", func(o *rpc.Opts) **bool { return &o.LazyPages }, "leave memory with the dumped tree, or fetch it on demand").
			with(on("dump", "restore", "page-server")),
		ours("page-server", "send memory to a page server", func(s *settings, in input) error {
			s.pageServer = !in.negated
			return nil
		}).with(negatable, on("dump", "pre-dump", "lazy-pages"), func(f *flag) { f.fields = []string{"ps"} }),
		forChild("stream", "", "stream the images to or from criu-image-streamer").with(func(f *flag) { f.fields = []string{"stream"} }),
		word("image-io-mode", "image_io_mode", func(o *rpc.Opts) **rpc.ImageIOMode { return &o.ImageIOMode }, map[string]rpc.ImageIOMode{
			"writeback": rpc.ImageIOModeWriteback, "direct": rpc.ImageIOModeDirect,
		}, "how page images are read and written: writeback (default) or direct (CRIU 4.3)").with(late),
		flag{Option: getopt.Option{Long: "compress", Short: 'c', Late: true}, place: byRPC, fields: []string{"compress"}, help: "compress page images (CRIU 4.3)",
			set: func(s *settings, in input) error { s.opts.Compress = new(uint32(1)); return nil }},
		number("compress-acceleration", "compress_acceleration", 65537, func(o *rpc.Opts) **uint32 { return &o.CompressAcceleration },
			"speed against ratio of the compression (CRIU 4.3)").with(late),
		parsed("compress-block", "SIZE", []string{"compress_block_size"}, "compress this much together (CRIU 4.3)", func(s *settings, in input) error {
			n, err := parseSize(in.value)
			s.opts.CompressBlockSize = &n
			return err
		}).with(late),
		number("decompress-threads", "decompress_threads", 1024, func(o *rpc.Opts) **uint32 { return &o.DecompressThreads }, "threads that decompress (CRIU 4.3)").with(late),
	}
}

func serverFlags() []flag {
	actions := on("dump", "pre-dump", "page-server", "lazy-pages", "service")
	pem := func(name, field string, at func(o *rpc.Opts) **string, help string) flag {
		return text(name, "FILE", field, at, help)
	}
	return []flag{
		ours("address", "address of the page server, or of the service's socket", func(s *settings, in input) error {
			s.address = in.value
			return nil
		}).with(arg("ADDR"), actions, func(f *flag) { f.fields = []string{"ps"} }),
		ours("port", "TCP port of the page server", func(s *settings, in input) (err error) {
			s.port, err = parsePort(in.value)
			return err
		}).with(arg("PORT"), actions, func(f *flag) { f.fields = []string{"ps"} }),
		ours("ps-socket", "use the open socket FD for the page server", func(s *settings, in input) error {
			fd, err := parseFD(in.value)
			s.psSocket = &fd
			return err
		}).with(arg("FD"), actions, func(f *flag) { f.fields = []string{"ps"} }),
		ours("status-fd", "write one NUL byte to FD and close it when ready", func(s *settings, in input) error {
			fd, err := parseFD(in.value)
			s.statusFD = &fd
			return err
		}).with(arg("FD"), actions, func(f *flag) { f.fields = []string{"status_fd"} }),
		boolean("tls", "tls", func(o *rpc.Opts) **bool { return &o.TLS }, "use TLS towards the page server"),
		pem("tls-cacert", "tls_cacert", func(o *rpc.Opts) **string { return &o.TLSCACert }, "trust certificates signed by this authority only"),
		pem("tls-cacrl", "tls_cacrl", func(o *rpc.Opts) **string { return &o.TLSCACRL }, "certificate revocation list"),
		pem("tls-cert", "tls_cert", func(o *rpc.Opts) **string { return &o.TLSCert }, "TLS certificate"),
		pem("tls-key", "tls_key", func(o *rpc.Opts) **string { return &o.TLSKey }, "TLS key"),
		switchOn("tls-no-cn-verify", "tls_no_cn_verify", func(o *rpc.Opts) **bool { return &o.TLSNoCNVerify }, "do not verify the name in the server's certificate"),
	}
}

func checkFlags() []flag {
	return []flag{
		forProgram("extra", "check features that are needed now and then, too").with(negatable, on("check")),
		forProgram("experimental", "check experimental features, too").with(negatable, on("check")),
		forProgram("all", "the same as --extra --experimental").with(on("check")),
		forProgram("feature", "check this feature only; criu --help lists them").with(arg("NAME"), on("check"), func(f *flag) {
			f.set = func(s *settings, in input) error {
				s.features = append(s.features, in.value)
				s.needProgram(in.flag.name())
				return nil
			}
		}),
	}
}

func deprecatedFlags() []flag {
	return []flag{
		flag{Option: getopt.Option{Long: "ext-unix-sk", Short: 'x', Arg: getopt.Optional}, value: "INODES", place: byRPC, hidden: true,
			fields: []string{"ext_unix_sk", "unix_sk_ino"}, help: "deprecated: use --external unix[INODE]",
			set: func(s *settings, in input) error {
				s.opts.ExtUnixSk = new(true)
				if !in.has || in.fromChild {
					return nil
				}
				list, err := parseUnixInodes(in.value)
				s.opts.UnixSkIno = append(s.opts.UnixSkIno, list...)
				return err
			}},
		parsed("ext-mount-map", "KEY:VALUE", []string{"ext_mnt", "auto_ext_mnt"}, "deprecated: use --external mnt[KEY]:VALUE", func(s *settings, in input) error {
			if in.value == "auto" {
				s.opts.AutoExtMnt = new(true)
				return nil
			}
			key, value, err := splitPair(in.value, ":", "KEY:VALUE")
			if err == nil && !in.fromChild {
				s.opts.ExtMnt = append(s.opts.ExtMnt, &rpc.ExtMountMap{Key: key, Val: value})
			}
			return err
		}).with(short('M'), hidden),
		switchOn("enable-external-sharing", "ext_sharing", func(o *rpc.Opts) **bool { return &o.ExtSharing }, "deprecated: use --external mnt[]:s").with(hidden),
		switchOn("enable-external-masters", "ext_masters", func(o *rpc.Opts) **bool { return &o.ExtMasters }, "deprecated: use --external mnt[]:m").with(hidden),
		parsed("veth-pair", "IN=OUT", []string{"veths"}, "deprecated: use --external veth[IN]:OUT", func(s *settings, in input) error {
			inside, outside, err := splitPair(in.value, "=", "IN=OUT")
			if err == nil && !in.fromChild {
				s.opts.Veths = append(s.opts.Veths, &rpc.VethPair{IfIn: inside, IfOut: outside})
			}
			return err
		}).with(hidden),
		forChild("deprecated", "", "allow what is deprecated").with(hidden),
		flag{Option: getopt.Option{Long: "ms"}, place: refused, hidden: true, help: "gone: see --extra, --experimental and --all",
			set: func(s *settings, in input) error {
				return errors.New("there is no such option any more; see --extra, --experimental and --all")
			}},
	}
}

// ownFlags are stasis' own. They are matched by their whole name only, so that no command line of criu's changes its
// meaning.
func ownFlags() []flag {
	return []flag{
		ours("engine", "who does it: builtin (default), criu, criu:PATH or service:SOCKET", func(s *settings, in input) (err error) {
			s.engine, err = parseEngine(in.value)
			return err
		}).with(arg("ENGINE"), own),
		ours("json", "print the answer as JSON", func(s *settings, in input) error { s.json = true; return nil }).with(own),
		ours("quiet", "print nothing but errors", func(s *settings, in input) error { s.quiet = true; return nil }).with(own),
	}
}

// tellChild keeps an option for the configuration file of a swrk child.
func (s *settings) tellChild(f *flag, name string, value ...string) error {
	if f.Long == "file-validation" && value[0] != "filesize" && value[0] != "buildid" {
		return fmt.Errorf("%q is not one of buildid, filesize", value[0])
	}
	s.child = append(s.child, childOption{flag: f.name(), name: name, value: value})
	return nil
}
