/* SPDX-License-Identifier: Apache-2.0 */

/*
 * libcriu: checkpoint and restore of processes, from C.
 *
 * The library asks CRIU, or anything that answers CRIU's RPC, to do the work: it starts `criu swrk`, or talks to a
 * service. A program fills in an options object, and calls an action:
 *
 *	criu_init_opts();
 *	criu_set_images_dir_fd(open("images", O_DIRECTORY | O_CLOEXEC));
 *	criu_set_pid(pid);
 *	if (criu_dump() < 0)
 *		...
 *
 * Every function exists twice: criu_x() works on one object that the whole program shares, criu_local_x() on one of its
 * own. The latter may be called by many threads at the same time, each on an object of its own.
 *
 * This is the API of CRIU 4.3's libcriu; what is beyond it stands at the end, as extensions.
 */
#ifndef CRIU_H
#define CRIU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* For criu_set_log_level(). */
#define CRIU_LOG_UNSET (-1)
#define CRIU_LOG_MSG   (0) /* what is always printed */
#define CRIU_LOG_ERROR (1)
#define CRIU_LOG_WARN  (2)
#define CRIU_LOG_INFO  (3)
#define CRIU_LOG_DEBUG (4)

/* How CRIU is reached: a service's socket, a connected descriptor, a program that is started. */
enum criu_service_comm { CRIU_COMM_SK, CRIU_COMM_FD, CRIU_COMM_BIN };

/* For criu_set_manage_cgroups_mode(); see --manage-cgroups in criu(8). */
enum criu_cg_mode {
	CRIU_CG_MODE_IGNORE,
	CRIU_CG_MODE_NONE,
	CRIU_CG_MODE_PROPS,
	CRIU_CG_MODE_SOFT,
	CRIU_CG_MODE_FULL,
	CRIU_CG_MODE_STRICT,
	CRIU_CG_MODE_DEFAULT,
};

/* For criu_set_network_lock(). */
enum criu_network_lock_method {
	CRIU_NETWORK_LOCK_IPTABLES = 1,
	CRIU_NETWORK_LOCK_NFTABLES = 2,
	CRIU_NETWORK_LOCK_SKIP = 3,
};

/* For criu_set_pre_dump_mode(). */
enum criu_pre_dump_mode { CRIU_PRE_DUMP_SPLICE = 1, CRIU_PRE_DUMP_READ = 2 };

/* For criu_set_image_io_mode(). */
enum criu_image_io_mode {
	CRIU_IMAGE_IO_WRITEBACK = 0,
	CRIU_IMAGE_IO_DIRECT = 1,
};

/* For criu_set_compress(), and the bounds of what goes with it. */
enum criu_compress_mode {
	CRIU_COMPRESS_OFF = 0,
	CRIU_COMPRESS_BLOCK = 1,
};

#define CRIU_COMPRESS_MAX_ACCELERATION 65537U
#define CRIU_COMPRESS_MAX_BLOCK_SIZE   (4U * 1024U * 1024U)
#define CRIU_DECOMPRESS_MAX_THREADS    1024U

/*
 * The options object.
 *
 * criu_init_opts() makes the shared one, or puts all its options back to their defaults; it comes before everything
 * but criu_check(). criu_local_init_opts() does the same for *opts, which has to be NULL or an object of this
 * function's: it frees what is there. Both return 0, or -1 without memory.
 *
 * Without an object, setters do nothing or return -EINVAL, and actions return -EINVAL.
 */
typedef struct criu_opts criu_opts;

int criu_init_opts(void);
void criu_free_opts(void);
int criu_local_init_opts(criu_opts **opts);
void criu_local_free_opts(criu_opts *opts);

/* Where CRIU is. The last of these that was called decides. They return 0, or -ENOMEM. */

/* generated: service */

/* The socket of a CRIU service; NULL: ./criu_service.socket. */
int criu_set_service_address(const char *path);
int criu_local_set_service_address(criu_opts *opts, const char *path);

/* A connected socket to a CRIU service. It serves one request, which closes it. */
void criu_set_service_fd(int fd);
void criu_local_set_service_fd(criu_opts *opts, int fd);

/*
 * A program to start as `PATH swrk FD`, looked up in $PATH where it has no slash; NULL: "criu", which is also what
 * is used when nothing was set.
 */
int criu_set_service_binary(const char *path);
int criu_local_set_service_binary(criu_opts *opts, const char *path);

/* end of generated: service */

/*
 * Notifications.
 *
 * What a callback is given is to be passed to the functions that read it. Programs that were written against
 * protobuf-c's struct find script and pid where they were; base is there for its size only. A program that includes
 * rpc.pb-c.h as well does so first.
 */
#ifndef PROTOBUF_C_rpc_2eproto__INCLUDED
typedef struct CriuNotify CriuNotify;
struct CriuNotify {
	struct {
		const void *descriptor;
		unsigned n_unknown_fields;
		void *unknown_fields;
	} base;
	char *script;
	int has_pid;
	int32_t pid;
};
#endif

typedef CriuNotify *criu_notify_arg_t;

/* The root task's pid, 0 in the stages that have none. */
int criu_notify_pid(criu_notify_arg_t na);

/*
 * The descriptor that came with the notification "orphan-pts-master": the master end of a terminal whose own was not
 * part of the dump. It is the program's to use and to close. -1 before there was one.
 */
int criu_get_orphan_pts_master_fd(void);

/*
 * Options.
 *
 * A string is copied. Functions that return int return 0, or -ENOMEM and leave the option as it was, or -EINVAL for
 * NULL where a string is needed. criu_set_x() replaces what was set, criu_add_x() of a list appends. An option that
 * was never set is not sent, so that CRIU's default holds.
 */

/* generated: options */

/* Directory of the images, as a descriptor of the caller's. */
void criu_set_images_dir_fd(int images_dir_fd);
void criu_local_set_images_dir_fd(criu_opts *opts, int images_dir_fd);

/* Root of the process tree; without it the caller itself is dumped. */
void criu_set_pid(int pid);
void criu_local_set_pid(criu_opts *opts, int pid);

/* Let the tree run on after the dump instead of killing it. */
void criu_set_leave_running(bool leave_running);
void criu_local_set_leave_running(criu_opts *opts, bool leave_running);

/* Allow unix sockets whose other end is outside the tree. */
void criu_set_ext_unix_sk(bool ext_unix_sk);
void criu_local_set_ext_unix_sk(criu_opts *opts, bool ext_unix_sk);

/* Checkpoint and restore established TCP connections. */
void criu_set_tcp_established(bool tcp_established);
void criu_local_set_tcp_established(criu_opts *opts, bool tcp_established);

/* Use any path to a device whose own path is inaccessible. */
void criu_set_evasive_devices(bool evasive_devices);
void criu_local_set_evasive_devices(criu_opts *opts, bool evasive_devices);

/* Allow a tree whose session and terminal are a shell's, outside the tree. */
void criu_set_shell_job(bool shell_job);
void criu_local_set_shell_job(criu_opts *opts, bool shell_job);

/* Dump and restore file locks; only safe when every holder is in the tree. */
void criu_set_file_locks(bool file_locks);
void criu_local_set_file_locks(criu_opts *opts, bool file_locks);

/* Verbosity of the log, 0 (none) to 4 (debug). CRIU's default is 2. */
void criu_set_log_level(int log_level);
void criu_local_set_log_level(criu_opts *opts, int log_level);

/* Name of the log file in the work directory, without a slash. */
int criu_set_log_file(const char *log_file);
int criu_local_set_log_file(criu_opts *opts, const char *log_file);

/* The page server that a dump sends memory to, or that criu_page_server() starts. */
int criu_set_page_server_address_port(const char *address, int port);
int criu_local_set_page_server_address_port(criu_opts *opts, const char *address, int port);

/*
 * A function to call at each stage. The action goes on when it returns 0; any other value aborts the action and is
 * what it returns. NULL: notifications are asked for and agreed to. The arguments are valid during the call only.
 */
void criu_set_notify_cb(int (*cb)(char *action, criu_notify_arg_t na));
void criu_local_set_notify_cb(criu_opts *opts, int (*cb)(char *action, criu_notify_arg_t na));

/* Root directory of the tree's mount namespace. */
int criu_set_root(const char *root);
int criu_local_set_root(criu_opts *opts, const char *root);

/* Images of the previous round, relative to the images directory. */
int criu_set_parent_images(const char *parent_img);
int criu_local_set_parent_images(criu_opts *opts, const char *parent_img);

/* Have the kernel track which memory changes from now on. */
void criu_set_track_mem(bool track_mem);
void criu_local_set_track_mem(criu_opts *opts, bool track_mem);

/* Punch pages that this round supersedes, or that were restored, out of the images. */
void criu_set_auto_dedup(bool auto_dedup);
void criu_local_set_auto_dedup(criu_opts *opts, bool auto_dedup);

/* Directory for the log, statistics and pid files; the images directory unless set. */
void criu_set_work_dir_fd(int work_dir_fd);
void criu_local_set_work_dir_fd(criu_opts *opts, int work_dir_fd);

/* Link unlinked files back into the file system where possible. */
void criu_set_link_remap(bool link_remap);
void criu_local_set_link_remap(criu_opts *opts, bool link_remap);

/* The name outside for a veth device inside. Deprecated: criu_add_external("veth[IN]:OUT"). */
int criu_add_veth_pair(const char *in, const char *out);
int criu_local_add_veth_pair(criu_opts *opts, const char *in, const char *out);

/* CPU capabilities to write or to require. CRIU's default is 0xffffffff. */
void criu_set_cpu_cap(unsigned int cpu_cap);
void criu_local_set_cpu_cap(criu_opts *opts, unsigned int cpu_cap);

/* Resolve the names of inotify and fsnotify watches by searching. */
void criu_set_force_irmap(bool force_irmap);
void criu_local_set_force_irmap(criu_opts *opts, bool force_irmap);

/* A command that CRIU turns into after a restore, as the parent of the restored tree. */
int criu_set_exec_cmd(int argc, char *argv[]);
int criu_local_set_exec_cmd(criu_opts *opts, int argc, char *argv[]);

/* What stands behind an external bind mount. Deprecated: criu_add_external("mnt[KEY]:VAL"). */
int criu_add_ext_mount(const char *key, const char *val);
int criu_local_add_ext_mount(criu_opts *opts, const char *key, const char *val);

/* True means the cgroup mode soft, false ignore. */
void criu_set_manage_cgroups(bool manage_cgroups);
void criu_local_set_manage_cgroups(criu_opts *opts, bool manage_cgroups);

/* The root cgroup of a controller; ctrl NULL: of all that have none of their own. */
int criu_add_cg_root(const char *ctrl, const char *path);
int criu_local_add_cg_root(criu_opts *opts, const char *ctrl, const char *path);

/*
 * An open file of the caller's that stands in for a dumped one, such as "pipe[1234]". Only where CRIU is a service
 * binary, which inherits the descriptor; -1 otherwise.
 */
int criu_add_inherit_fd(int fd, const char *key);
int criu_local_add_inherit_fd(criu_opts *opts, int fd, const char *key);

/* Find external bind mounts automatically. */
void criu_set_auto_ext_mnt(bool auto_ext_mnt);
void criu_local_set_auto_ext_mnt(criu_opts *opts, bool auto_ext_mnt);

/* With AutoExtMounts: allow external mounts that are shared. */
void criu_set_ext_sharing(bool ext_sharing);
void criu_local_set_ext_sharing(criu_opts *opts, bool ext_sharing);

/* With AutoExtMounts: allow external mounts that have a master. */
void criu_set_ext_masters(bool ext_masters);
void criu_local_set_ext_masters(criu_opts *opts, bool ext_masters);

/* Mount points to leave out. */
int criu_add_skip_mnt(const char *skip_mnt);
int criu_local_add_skip_mnt(criu_opts *opts, const char *skip_mnt);

/* File systems to dump and restore although they are not supported, or all. */
int criu_add_enable_fs(const char *enable_fs);
int criu_local_add_enable_fs(criu_opts *opts, const char *enable_fs);

/*
 * A unix socket whose other end is outside the tree. Sets ext_unix_sk; where that was set to false, forgets all
 * inodes and returns -1. Deprecated: criu_add_external("unix[INODE]").
 */
int criu_add_unix_sk(unsigned int inode);
int criu_local_add_unix_sk(criu_opts *opts, unsigned int inode);

/* How cgroups and their properties are dumped and restored. */
void criu_set_manage_cgroups_mode(enum criu_cg_mode manage_cgroups_mode);
void criu_local_set_manage_cgroups_mode(criu_opts *opts, enum criu_cg_mode manage_cgroups_mode);

/* Largest deleted file, in bytes, whose content goes into the images. CRIU's default is 0x100000. */
void criu_set_ghost_limit(unsigned int ghost_limit);
void criu_local_set_ghost_limit(criu_opts *opts, unsigned int ghost_limit);

/* Paths to search for the files behind inotify watches. */
int criu_add_irmap_path(const char *irmap_scan_paths);
int criu_local_add_irmap_path(criu_opts *opts, const char *irmap_scan_paths);

/* Resources that are outside the tree, such as mnt[/data]:data. */
int criu_add_external(const char *external);
int criu_local_add_external(criu_opts *opts, const char *external);

/* Namespaces (CLONE_NEW flags) to create without restoring what they hold. */
void criu_set_empty_ns(int empty_ns);
void criu_local_set_empty_ns(criu_opts *opts, int empty_ns);

/*
 * An existing namespace to restore into: its kind, and a pid or the path of a namespace file; extra_opt is
 * "UID,GID" for a user namespace, else NULL. -1 where one of the first two is NULL.
 */
int criu_join_ns_add(const char *ns, const char *ns_file, const char *extra_opt);
int criu_local_join_ns_add(criu_opts *opts, const char *ns, const char *ns_file, const char *extra_opt);

/* Cgroup controllers and properties to dump, in CRIU's YAML form. */
int criu_add_cg_props(const char *cgroup_props);
int criu_local_add_cg_props(criu_opts *opts, const char *cgroup_props);

/* File with the same as CgroupProps. */
int criu_add_cg_props_file(const char *cgroup_props_file);
int criu_local_add_cg_props_file(criu_opts *opts, const char *cgroup_props_file);

/* Dump these cgroup controllers only. */
int criu_add_cg_dump_controller(const char *cgroup_dump_controller);
int criu_local_add_cg_dump_controller(criu_opts *opts, const char *cgroup_dump_controller);

/* Freezer cgroup, as a path, that stops the tree. */
int criu_set_freeze_cgroup(const char *freeze_cgroup);
int criu_local_set_freeze_cgroup(criu_opts *opts, const char *freeze_cgroup);

/* How long collecting the tasks may take. */
void criu_set_timeout(unsigned int timeout);
void criu_local_set_timeout(criu_opts *opts, unsigned int timeout);

/* Leave out TCP connections that are not yet established. */
void criu_set_tcp_skip_in_flight(bool tcp_skip_in_flight);
void criu_local_set_tcp_skip_in_flight(criu_opts *opts, bool tcp_skip_in_flight);

/* Skip sysctls that this kernel lacks. */
void criu_set_weak_sysctls(bool weak_sysctls);
void criu_local_set_weak_sysctls(criu_opts *opts, bool weak_sysctls);

/* Leave memory with the dumped tree, or fetch it on demand, through a lazy-pages daemon. */
void criu_set_lazy_pages(bool lazy_pages);
void criu_local_set_lazy_pages(criu_opts *opts, bool lazy_pages);

/* Create a master for a terminal whose own is outside, and send it with a notification. */
void criu_set_orphan_pts_master(bool orphan_pts_master);
void criu_local_set_orphan_pts_master(criu_opts *opts, bool orphan_pts_master);

/* Configuration file that the peer reads last, over everything else. */
int criu_set_config_file(const char *config_file);
int criu_local_set_config_file(criu_opts *opts, const char *config_file);

/* Restore TCP connections closed, and do not dump their state. */
void criu_set_tcp_close(bool tcp_close);
void criu_local_set_tcp_close(criu_opts *opts, bool tcp_close);

/* Security profile to restore under, TYPE:NAME. */
int criu_set_lsm_profile(const char *lsm_profile);
int criu_local_set_lsm_profile(criu_opts *opts, const char *lsm_profile);

/* Trust certificates signed by this authority only. */
int criu_set_tls_cacert(const char *tls_cacert);
int criu_local_set_tls_cacert(criu_opts *opts, const char *tls_cacert);

/* Certificate revocation list. */
int criu_set_tls_cacrl(const char *tls_cacrl);
int criu_local_set_tls_cacrl(criu_opts *opts, const char *tls_cacrl);

/* TLS certificate file. */
int criu_set_tls_cert(const char *tls_cert);
int criu_local_set_tls_cert(criu_opts *opts, const char *tls_cert);

/* TLS key file. */
int criu_set_tls_key(const char *tls_key);
int criu_local_set_tls_key(criu_opts *opts, const char *tls_key);

/* Use TLS towards the page server. */
void criu_set_tls(bool tls);
void criu_local_set_tls(criu_opts *opts, bool tls);

/* Do not verify the common name in the server's certificate. */
void criu_set_tls_no_cn_verify(bool tls_no_cn_verify);
void criu_local_set_tls_no_cn_verify(criu_opts *opts, bool tls_no_cn_verify);

/* Directory in which the cgroup hierarchies are mounted already. */
int criu_add_cg_yard(const char *cgroup_yard);
int criu_local_add_cg_yard(criu_opts *opts, const char *cgroup_yard);

/* How a pre-dump reads memory. CRIU's default is SPLICE. -1 for another value. */
int criu_set_pre_dump_mode(enum criu_pre_dump_mode pre_dump_mode);
int criu_local_set_pre_dump_mode(criu_opts *opts, enum criu_pre_dump_mode pre_dump_mode);

/* Datagram socket that keeps pidfds between pre-dumps, to notice reused pids. */
void criu_set_pidfd_store_sk(int pidfd_store_sk);
void criu_local_set_pidfd_store_sk(criu_opts *opts, int pidfd_store_sk);

/* Mount context that replaces the dumped ones. */
int criu_set_lsm_mount_context(const char *lsm_mount_context);
int criu_local_set_lsm_mount_context(criu_opts *opts, const char *lsm_mount_context);

/* How the network is locked between dump and restore. CRIU's default is IPTABLES. -1 for another value. */
int criu_set_network_lock(enum criu_network_lock_method network_lock);
int criu_local_set_network_lock(criu_opts *opts, enum criu_network_lock_method network_lock);

/* Use the older way of restoring mounts. */
void criu_set_mntns_compat_mode(bool mntns_compat_mode);
void criu_local_set_mntns_compat_mode(criu_opts *opts, bool mntns_compat_mode);

/* Do not compare the permissions of files with those at the dump. */
void criu_set_skip_file_rwx_check(bool skip_file_rwx_check);
void criu_local_set_skip_file_rwx_check(criu_opts *opts, bool skip_file_rwx_check);

/* Accept what cannot be done without root. */
void criu_set_unprivileged(bool unprivileged);
void criu_local_set_unprivileged(criu_opts *opts, bool unprivileged);

/* Leave the tree stopped after the operation. */
void criu_set_leave_stopped(bool leave_stopped);
void criu_local_set_leave_stopped(criu_opts *opts, bool leave_stopped);

/* Print the statistics to the peer's standard output. */
void criu_set_display_stats(bool display_stats);
void criu_local_set_display_stats(criu_opts *opts, bool display_stats);

/* Log to the peer's standard error where no log file is named. */
void criu_set_log_to_stderr(bool log_to_stderr);
void criu_local_set_log_to_stderr(criu_opts *opts, bool log_to_stderr);

/* How page images are read and written. CRIU's default is IMAGE_IO_WRITEBACK. -1 for another value. */
int criu_set_image_io_mode(enum criu_image_io_mode image_io_mode);
int criu_local_set_image_io_mode(criu_opts *opts, enum criu_image_io_mode image_io_mode);

/* Compression of page images. CRIU_COMPRESS_OFF also forgets the next two. -EINVAL for another value. */
int criu_set_compress(enum criu_compress_mode mode);
int criu_local_set_compress(criu_opts *opts, enum criu_compress_mode mode);

/*
 * Speed against ratio of the compression, which this turns on. -EINVAL unless from 1 to
 * CRIU_COMPRESS_MAX_ACCELERATION.
 */
int criu_set_compress_acceleration(unsigned int acceleration);
int criu_local_set_compress_acceleration(criu_opts *opts, unsigned int acceleration);

/*
 * Bytes that are compressed together; turns compression on. -EINVAL unless a multiple of 4096 up to
 * CRIU_COMPRESS_MAX_BLOCK_SIZE.
 */
int criu_set_compress_block_size(unsigned int bytes);
int criu_local_set_compress_block_size(criu_opts *opts, unsigned int bytes);

/* Threads that decompress, at most 1024. CRIU's default is 1. -EINVAL above 1024. */
int criu_set_decompress_threads(unsigned int decompress_threads);
int criu_local_set_decompress_threads(criu_opts *opts, unsigned int decompress_threads);

/* An option for a plugin, PLUGIN.NAME[=VALUE]; -EINVAL for another form. */
int criu_add_plugin_option(const char *option);
int criu_local_add_plugin_option(criu_opts *opts, const char *option);

/* Stream the images to or from criu-image-streamer. */
void criu_set_stream(bool stream);
void criu_local_set_stream(criu_opts *opts, bool stream);

/* end of generated: options */

/*
 * Actions.
 *
 *	0               done
 *	> 0             done; the pid (restore), or 1 in the restored copy (dump)
 *	-EBADE          the peer reports a failure; errno is its reason, or 0
 *	-ECONNREFUSED   no connection to the peer; errno is the reason
 *	-ECOMM          the conversation broke, or the binary cannot be run; errno is the reason, or 0
 *	-EINVAL         the peer does not know this request, or the options do not allow it
 *	-EBADMSG        the peer answered something else
 */
typedef void *criu_predump_info;

struct criu_feature_check {
	bool mem_track;       /* memory changes can be tracked */
	bool lazy_pages;      /* memory can be restored on demand */
	bool pidfd_store;     /* reused pids can be told */
	bool mem_compression; /* page images can be compressed */
};

/* generated: actions */

/* Checks that the kernel has what CRIU needs. The only action that may come before criu_init_opts(). */
int criu_check(void);
int criu_local_check(criu_opts *opts);

/*
 * Dumps a process tree. Without a pid it is the caller that is dumped, and the restored copy returns from the same
 * call with 1.
 */
int criu_dump(void);
int criu_local_dump(criu_opts *opts);

/* Dumps memory only, once. */
int criu_pre_dump(void);
int criu_local_pre_dump(criu_opts *opts);

/* Restores a process tree and returns the pid of its root. */
int criu_restore(void);
int criu_local_restore(criu_opts *opts);

/*
 * Restores a process tree as a child of the caller, whom waitpid() then serves. Always starts a binary: the one
 * that was set, or "criu" where a service was.
 */
int criu_restore_child(void);
int criu_local_restore_child(criu_opts *opts);

/*
 * Dumps memory again and again, and then everything. After each round more() is called, with NULL for now: above 0
 * for one more round, 0 for the final dump, below 0 to abort with that value. Needs a pid.
 */
int criu_dump_iters(int (*more)(criu_predump_info pi));
int criu_local_dump_iters(criu_opts *opts, int (*more)(criu_predump_info pi));

/*
 * The version of the peer (which the library is not part of): major * 10000 + minor * 100 + sublevel. A peer that
 * was built between releases counts as the next minor one.
 */
int criu_get_version(void);
int criu_local_get_version(criu_opts *opts);

/* 1 if the peer's version is at least minimum, 0 if not, below 0 on error. */
int criu_check_version(int minimum);
int criu_local_check_version(criu_opts *opts, int minimum);

/*
 * Asks for the features that are true in *features, and leaves true those that kernel and peer have. size is
 * sizeof(*features) as the program knows it; -1 for one that the library does not.
 */
int criu_feature_check(struct criu_feature_check *features, size_t size);
int criu_local_feature_check(criu_opts *opts, struct criu_feature_check *features, size_t size);

/* end of generated: actions */

/*
 * Extensions: what CRIU's own library does not have. A program that is to compile against both asks for
 * CRIU_HAVE_EXTENSIONS; its value grows when there are more.
 */
#define CRIU_HAVE_EXTENSIONS 1

/* generated: extension options */

/* File that gets one NUL byte when the page server or lazy dump is ready. */
void criu_set_status_fd(int status_fd);
void criu_local_set_status_fd(criu_opts *opts, int status_fd);

/* Directory of the images as a path that the peer opens, where no descriptor is given. */
int criu_set_images_dir(const char *images_dir);
int criu_local_set_images_dir(criu_opts *opts, const char *images_dir);

/* end of generated: extension options */

/* The descriptor of criu_get_orphan_pts_master_fd(), of an action on these options. */
int criu_local_get_orphan_pts_master_fd(criu_opts *opts);

/* generated: extensions */

/* criu_set_notify_cb() with a pointer for the callback. The last of the two that was called counts. */
void criu_set_notify_cb_data(int (*cb)(char *action, criu_notify_arg_t na, void *data), void *data);
void criu_local_set_notify_cb_data(criu_opts *opts, int (*cb)(char *action, criu_notify_arg_t na, void *data), void *data);

/*
 * Why the last action failed: the peer's own message (cr_errmsg) where it sent one, else what went wrong here,
 * such as "cannot connect to /run/criu.sock: No such file or directory". "" when it did not fail. Valid until the
 * next action on these options, or their end.
 */
const char *criu_get_errmsg(void);
const char *criu_local_get_errmsg(criu_opts *opts);

/*
 * The first error line of the peer's log, where the last action failed and left one in the work or images
 * directory; else "". Valid as long as the above.
 */
const char *criu_get_log_error(void);
const char *criu_local_get_log_error(criu_opts *opts);

/* Writes the CPU's capabilities into the images directory. */
int criu_cpuinfo_dump(void);
int criu_local_cpuinfo_dump(criu_opts *opts);

/* Compares the CPU with what criu_cpuinfo_dump() wrote: 0 if images from there can be restored here. */
int criu_cpuinfo_check(void);
int criu_local_cpuinfo_check(criu_opts *opts);

/*
 * Starts a page server in the background, which writes to the images directory and listens where
 * criu_set_page_server_address_port() says (port 0: any). Returns its pid, or 0 where the peer does not tell (CRIU
 * tells of a child only), and its port in *port unless NULL. It ends with its first connection.
 */
int criu_page_server(int *port);
int criu_local_page_server(criu_opts *opts, int *port);

/* The same, as a child of the peer, which stays until criu_wait_pid() or the end of the options. */
int criu_page_server_child(int *port);
int criu_local_page_server_child(criu_opts *opts, int *port);

/*
 * Waits for the page server that criu_page_server_child() started; *status is as from waitpid(). -EINVAL where it
 * had ended before, and CRIU, which then waits itself, no longer knows how.
 */
int criu_wait_pid(int pid, int *status);
int criu_local_wait_pid(criu_opts *opts, int pid, int *status);

/* end of generated: extensions */

#ifdef __cplusplus
}
#endif

#endif
