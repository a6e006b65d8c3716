//go:build amd64

package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
)

// treatment is what the engine does with an option of a request.
type treatment int

const (
	unable treatment = iota // it cannot do what the option asks, and says so
	heeded                  // it does what the option asks
	// idle: there is nothing to do. The option only allows something of which there is none in a tree that the engine takes (it
	// would be refused by name), says how something is done that is not done, or has no meaning for the operation.
	idle
)

func (t treatment) String() string {
	return map[treatment]string{unable: "refused", heeded: "done", idle: "nothing to do"}[t]
}

// option is how the engine treats a field of criu_opts.
type option struct {
	name          string
	dump, restore treatment
	set           func(o *rpc.Opts) bool // it asks for something; nil where it is never refused
}

// options returns every field of criu_opts.
func options() []option {
	has := func(at func(*rpc.Opts) *string) func(*rpc.Opts) bool {
		return func(o *rpc.Opts) bool { return value(at(o)) != "" }
	}
	is := func(at func(*rpc.Opts) *bool) func(*rpc.Opts) bool {
		return func(o *rpc.Opts) bool { return value(at(o)) }
	}
	return []option{
		// what every operation has
		{"images_dir_fd", heeded, heeded, nil}, {"images_dir", heeded, heeded, nil}, {"work_dir_fd", heeded, heeded, nil},
		{"log_level", heeded, heeded, nil}, {"log_file", heeded, heeded, nil}, {"log_to_stderr", heeded, heeded, nil},
		{"notify_scripts", heeded, heeded, nil}, {"timeout", heeded, heeded, nil}, {"display_stats", heeded, heeded, nil},
		{"shell_job", heeded, heeded, nil}, {"leave_stopped", heeded, heeded, nil}, {"cpu_cap", heeded, heeded, nil},
		{"unprivileged", idle, idle, nil},
		{"config_file", unable, unable, has(func(o *rpc.Opts) *string { return o.ConfigFile })}, // a server reads it before

		// the tree
		{"pid", heeded, idle, nil}, {"leave_running", heeded, idle, nil}, {"freeze_cgroup", heeded, idle, nil},
		{"rst_sibling", idle, heeded, nil}, {"inherit_fd", idle, heeded, nil}, {"skip_file_rwx_check", idle, heeded, nil},
		{"external", heeded, heeded, nil}, // see knownExternal
		{"exec_cmd", idle, unable, func(o *rpc.Opts) bool { return len(o.ExecCmd) > 0 }},
		{"status_fd", idle, idle, nil}, // it gets a byte when pages are served, and nothing otherwise
		{"pidfd_store_sk", unable, unable, func(o *rpc.Opts) bool { return o.PidfdStoreSk != nil }},
		{"lsm_profile", idle, unable, has(func(o *rpc.Opts) *string { return o.LSMProfile })},
		{"lsm_mount_context", idle, unable, has(func(o *rpc.Opts) *string { return o.LSMMountContext })},

		// files of which there are none yet, and what would be allowed of them
		{"evasive_devices", idle, idle, nil}, {"file_locks", idle, idle, nil}, {"link_remap", heeded, idle, nil}, {"ghost_limit", heeded, idle, nil},
		{"force_irmap", idle, idle, nil}, {"irmap_scan_paths", idle, idle, nil}, {"orphan_pts_master", idle, idle, nil},

		// sockets
		{"ext_unix_sk", idle, idle, nil}, {"unix_sk_ino", idle, idle, nil}, {"tcp_established", idle, idle, nil}, {"tcp_skip_in_flight", idle, idle, nil},
		{"tcp_close", idle, idle, nil}, {"network_lock", idle, idle, nil},

		// control groups
		{"manage_cgroups", heeded, idle, nil}, {"manage_cgroups_mode", heeded, idle, nil}, // on a restore, the plan says what it leaves out
		{"cg_root", unable, unable, func(o *rpc.Opts) bool { return len(o.CgRoot) > 0 }},
		{"cgroup_props", unable, unable, has(func(o *rpc.Opts) *string { return o.CgroupProps })},
		{"cgroup_props_file", unable, unable, has(func(o *rpc.Opts) *string { return o.CgroupPropsFile })},
		{"cgroup_dump_controller", unable, unable, func(o *rpc.Opts) bool { return len(o.CgroupDumpController) > 0 }},
		{"cgroup_yard", unable, unable, has(func(o *rpc.Opts) *string { return o.CgroupYard })},

		// namespaces
		{"root", unable, unable, has(func(o *rpc.Opts) *string { return o.Root })},
		{"veths", idle, idle, nil}, {"ext_mnt", idle, idle, nil}, // deprecated; names for what is in other namespaces
		{"auto_ext_mnt", idle, idle, nil}, {"ext_sharing", idle, idle, nil}, {"ext_masters", idle, idle, nil}, {"mntns_compat_mode", idle, idle, nil},
		{"weak_sysctls", idle, idle, nil},
		{"skip_mnt", unable, unable, func(o *rpc.Opts) bool { return len(o.SkipMnt) > 0 }},
		{"enable_fs", unable, unable, func(o *rpc.Opts) bool { return len(o.EnableFS) > 0 }},
		{"empty_ns", unable, unable, func(o *rpc.Opts) bool { return value(o.EmptyNS) != 0 }},
		{"join_ns", unable, unable, func(o *rpc.Opts) bool { return len(o.JoinNS) > 0 }},

		// memory
		{"ps", unable, unable, func(o *rpc.Opts) bool { return o.PS != nil }},
		{"parent_img", unable, idle, has(func(o *rpc.Opts) *string { return o.ParentImg })},
		{"track_mem", unable, idle, is(func(o *rpc.Opts) *bool { return o.TrackMem })},
		{"auto_dedup", unable, unable, is(func(o *rpc.Opts) *bool { return o.AutoDedup })},
		{"lazy_pages", unable, unable, is(func(o *rpc.Opts) *bool { return o.LazyPages })},
		{"stream", unable, unable, is(func(o *rpc.Opts) *bool { return o.Stream })},
		{"image_io_mode", unable, unable, func(o *rpc.Opts) bool { return value(o.ImageIOMode) != rpc.ImageIOModeWriteback }},
		{"compress", unable, idle, func(o *rpc.Opts) bool { return value(o.Compress) != 0 }},
		{"compress_acceleration", idle, idle, nil}, {"compress_block_size", idle, idle, nil}, {"decompress_threads", idle, idle, nil},
		{"pre_dump_mode", idle, idle, nil},
		{"tls", unable, unable, is(func(o *rpc.Opts) *bool { return o.TLS })},
		{"tls_cacert", idle, idle, nil}, {"tls_cacrl", idle, idle, nil}, {"tls_cert", idle, idle, nil}, {"tls_key", idle, idle, nil}, {"tls_no_cn_verify", idle, idle, nil},

		{"plugin_options", unable, unable, func(o *rpc.Opts) bool { return len(o.PluginOptions) > 0 }},
	}
}

// refuseOptions reports the options that the engine cannot honour, all in one error. None is passed over in silence.
func refuseOptions(o *rpc.Opts, restoring bool) error {
	var names []string
	for _, opt := range options() {
		how := opt.dump
		if restoring {
			how = opt.restore
		}
		if how == unable && opt.set(o) {
			names = append(names, opt.name)
		}
	}
	for _, e := range o.External {
		if !knownExternal(e) {
			names = append(names, "external "+e)
		}
	}
	if len(names) == 0 {
		return nil
	}
	what := "the option "
	if len(names) > 1 {
		what = "the options "
	}
	return fmt.Errorf("the built-in engine does not have %s yet: %w: %w", what+strings.Join(names, ", "), errors.ErrUnsupported, unix.EBADRQC)
}

// knownExternal tells whether an external resource is of a kind that the collectors claim.
func knownExternal(name string) bool {
	kind, _, _ := strings.Cut(name, "[")
	return slices.Contains(externalKinds(), kind)
}

// externalKinds are the kinds of external resources that there are collectors for.
func externalKinds() []string { return []string{"file", "tty"} }

// ghostLimit is how many bytes a deleted file may have to be saved.
func ghostLimit(o *rpc.Opts) uint64 {
	const otherwise = 1 << 20 // as CRIU has it
	if o.GhostLimit == nil {
		return otherwise
	}
	return uint64(*o.GhostLimit)
}

// cgroupMode is what a request says of control groups.
func cgroupMode(o *rpc.Opts) rpc.CgroupMode {
	switch {
	case o.ManageCgroupsMode != nil:
		return *o.ManageCgroupsMode
	case o.ManageCgroups == nil:
		return rpc.CgroupModeDefault
	case *o.ManageCgroups:
		return rpc.CgroupModeSoft
	}
	return rpc.CgroupModeIgnore
}
