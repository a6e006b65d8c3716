package server

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// askOnce asks one request, refuses the notifications that come, and returns the answer.
func askOnce(t *testing.T, service criu.Transport, req *rpc.Req) *rpc.Resp {
	t.Helper()
	conn, err := service.Open(t.Context(), criu.Call{Op: req.Type})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for {
		if err := conn.Send(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		msg, err := conn.Recv(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if msg.Resp.Type != rpc.ReqNotify {
			return msg.Resp
		}
		req = &rpc.Req{Type: rpc.ReqNotify, NotifySuccess: new(false)}
	}
}

// openDir opens a directory.
func openDir(t *testing.T, path string) *os.File {
	t.Helper()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// Every request is answered by the built-in engine, in front of which there is a service or nothing but swrk. Whatever fails has its
// errno, says what is wrong, and has what CRIU's answers always have; and the reason is in the log where there is one.
func TestAnswersOfEngine(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	s := startServer(t, builtin, "")
	for name, transport := range map[string]criu.Transport{"service": &criu.Service{Path: s.socket}, "swrk": swrkOf(builtin)} {
		t.Run(name, func(t *testing.T) { answersOfEngine(t, transport) })
	}
}

func answersOfEngine(t *testing.T, transport criu.Transport) {
	v := testkit.StartVictim(t, "counter")
	pid, nobody := new(int32(v.Pid)), new(int32(4194303))
	good, bad := t.TempDir(), t.TempDir()
	for _, dir := range []string{good, bad} {
		if _, err := criu.New(transport).Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir, LeaveRunning: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(bad, "inventory.img"), []byte("this is not an image"), 0o600); err != nil {
		t.Fatal(err)
	}
	goodFD, badFD := int32(openDir(t, good).Fd()), int32(openDir(t, bad).Fd())
	const log = "request.log"
	for _, tc := range []struct {
		name  string
		req   rpc.Req // in whose options images_dir_fd is a new directory unless it is said
		typ   rpc.ReqType
		errno syscall.Errno // 0 where it succeeds
		says  string
	}{
		{"VERSION", rpc.Req{Type: rpc.ReqVersion}, rpc.ReqVersion, 0, ""},
		{"CHECK", rpc.Req{Type: rpc.ReqCheck, Opts: &rpc.Opts{}}, rpc.ReqCheck, 0, ""},
		{"FEATURE_CHECK", rpc.Req{Type: rpc.ReqFeatureCheck, Features: &rpc.Features{MemTrack: new(true)}}, rpc.ReqFeatureCheck, 0, ""},
		{"CPUINFO_DUMP", rpc.Req{Type: rpc.ReqCPUInfoDump, Opts: &rpc.Opts{}}, rpc.ReqCPUInfoDump, 0, ""},
		{"CPUINFO_CHECK of no images", rpc.Req{Type: rpc.ReqCPUInfoCheck, Opts: &rpc.Opts{}}, rpc.ReqCPUInfoCheck, syscall.ENOENT, "cpuinfo"},
		{"PRE_DUMP", rpc.Req{Type: rpc.ReqPreDump, Opts: &rpc.Opts{PID: pid}}, rpc.ReqPreDump, syscall.ENOTSUP, "PRE_DUMP"},
		{"SINGLE_PRE_DUMP", rpc.Req{Type: rpc.ReqSinglePreDump, Opts: &rpc.Opts{PID: pid}}, rpc.ReqSinglePreDump, syscall.ENOTSUP, "SINGLE_PRE_DUMP"},
		{"PAGE_SERVER", rpc.Req{Type: rpc.ReqPageServer, Opts: &rpc.Opts{}}, rpc.ReqPageServer, syscall.ENOTSUP, "PAGE_SERVER"},
		{"PAGE_SERVER_CHLD", rpc.Req{Type: rpc.ReqPageServerChild, Opts: &rpc.Opts{}}, rpc.ReqPageServer, syscall.ENOTSUP, "PAGE_SERVER_CHLD"},
		{"WAIT_PID", rpc.Req{Type: rpc.ReqWaitPID, PID: new(uint32(1))}, rpc.ReqWaitPID, syscall.ENOTSUP, "WAIT_PID"},
		{"NOTIFY", rpc.Req{Type: rpc.ReqNotify, NotifySuccess: new(true)}, rpc.ReqEmpty, syscall.EINVAL, "NOTIFY"},
		{"EMPTY", rpc.Req{Type: rpc.ReqEmpty}, rpc.ReqEmpty, syscall.EINVAL, "EMPTY"},
		{"none", rpc.Req{Type: 77}, rpc.ReqEmpty, syscall.EINVAL, "77"},
		{"DUMP without options", rpc.Req{Type: rpc.ReqDump}, rpc.ReqDump, syscall.EBADRQC, "options"},
		{"DUMP of nobody", rpc.Req{Type: rpc.ReqDump, Opts: &rpc.Opts{PID: nobody}}, rpc.ReqDump, syscall.ESRCH, "4194303"},
		{"DUMP of no pid", rpc.Req{Type: rpc.ReqDump, Opts: &rpc.Opts{PID: new(int32(-5))}}, rpc.ReqDump, syscall.EINVAL, "-5"},
		{"DUMP to nowhere", rpc.Req{Type: rpc.ReqDump, Opts: &rpc.Opts{PID: pid, ImagesDirFD: -1}}, rpc.ReqDump, syscall.EBADF, "-1"},
		{"DUMP with what there is not", rpc.Req{Type: rpc.ReqDump, Opts: &rpc.Opts{PID: pid, TrackMem: new(true)}}, rpc.ReqDump, syscall.EBADRQC, "track_mem"},
		{"DUMP of what asks", rpc.Req{Type: rpc.ReqDump, Opts: &rpc.Opts{PID: new(int32(os.Getpid()))}}, rpc.ReqDump, syscall.ENOTSUP, "in its tree"},
		{"DUMP that is refused", rpc.Req{Type: rpc.ReqDump, Opts: &rpc.Opts{PID: pid, NotifyScripts: new(true)}}, rpc.ReqDump, syscall.ECANCELED, "pre-dump"},
		{"RESTORE without options", rpc.Req{Type: rpc.ReqRestore}, rpc.ReqRestore, syscall.EBADRQC, "options"},
		{"RESTORE of nothing", rpc.Req{Type: rpc.ReqRestore, Opts: &rpc.Opts{}}, rpc.ReqRestore, syscall.ENOENT, "inventory.img"},
		{"RESTORE of what is no image", rpc.Req{Type: rpc.ReqRestore, Opts: &rpc.Opts{ImagesDirFD: badFD}}, rpc.ReqRestore, syscall.EINVAL, "inventory.img"},
		{"RESTORE of what is there", rpc.Req{Type: rpc.ReqRestore, Opts: &rpc.Opts{ImagesDirFD: goodFD}}, rpc.ReqRestore, syscall.EEXIST, "in use"},
		{"RESTORE that is refused", rpc.Req{Type: rpc.ReqRestore, Opts: &rpc.Opts{ImagesDirFD: goodFD, NotifyScripts: new(true)}}, rpc.ReqRestore, syscall.ECANCELED, "pre-restore"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if o := tc.req.Opts; o != nil {
				o.LogFile, o.WorkDirFD = new(log), new(int32(openDir(t, dir).Fd()))
				if o.ImagesDirFD == 0 {
					o.ImagesDirFD = *o.WorkDirFD
				}
			}
			resp := askOnce(t, transport, &tc.req)
			switch {
			case resp.Type != tc.typ || resp.Success != (tc.errno == 0):
				t.Fatalf("answered %v, success %v, %s; want %v", resp.Type, resp.Success, text(resp), tc.typ)
			case resp.Success:
				return
			case resp.CrErrno == nil || *resp.CrErrno != int32(tc.errno) || !strings.Contains(text(resp), tc.says):
				t.Errorf("%v, %q; want errno %d (%v) and %q", resp.CrErrno, text(resp), tc.errno, tc.errno, tc.says)
			case tc.typ == rpc.ReqDump && (resp.Dump == nil || resp.Dump.Restored == nil || *resp.Dump.Restored):
				t.Errorf("of the dump: %+v", resp.Dump)
			case tc.typ == rpc.ReqRestore && (resp.Restore == nil || resp.Restore.PID > 0):
				t.Errorf("of the restore: %+v", resp.Restore)
			}
			// Before a directory is open there is no log, nor is there one of what the server itself refuses.
			if logged, err := os.ReadFile(filepath.Join(dir, log)); err == nil && !strings.Contains(string(logged), tc.says) {
				t.Errorf("the log lacks %q: %s", tc.says, logged)
			} else if err != nil && tc.errno == syscall.ENOTSUP && tc.req.Opts != nil {
				t.Error(err)
			}
		})
	}
	v.MustVerify()
}

// The descriptors of status_fd and pidfd_store_sk, which only a client that has started its own swrk may name: one that is there is
// taken, though nothing is written to the first where no pages are served; the engine keeps no pidfds, and says so.
func TestDescriptorsForStatusAndPidfds(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	s := startServer(t, builtin, "")
	service := &criu.Service{Path: s.socket}
	v := testkit.StartVictim(t, "counter")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	there, none := new(int32(w.Fd())), new(int32(1<<20))
	for _, tc := range []struct {
		name  string
		by    criu.Transport
		opts  rpc.Opts
		errno syscall.Errno
		says  string
	}{
		{"status_fd", swrkOf(builtin), rpc.Opts{StatusFD: there}, 0, ""},
		{"status_fd of nothing", swrkOf(builtin), rpc.Opts{StatusFD: none}, syscall.EBADF, "status_fd"},
		{"pidfd_store_sk", swrkOf(builtin), rpc.Opts{PidfdStoreSk: there}, syscall.EBADRQC, "pidfd_store_sk"},
		{"pidfd_store_sk of nothing", swrkOf(builtin), rpc.Opts{PidfdStoreSk: none}, syscall.EBADF, "pidfd_store_sk"},
		{"status_fd of a service's client", service, rpc.Opts{StatusFD: there}, syscall.EPERM, "status_fd"},
		{"pidfd_store_sk of a service's client", service, rpc.Opts{PidfdStoreSk: there}, syscall.EPERM, "pidfd_store_sk"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.opts.ImagesDirFD, tc.opts.PID, tc.opts.LeaveRunning = int32(openDir(t, t.TempDir()).Fd()), new(int32(v.Pid)), new(true)
			resp := askOnce(t, tc.by, &rpc.Req{Type: rpc.ReqDump, Opts: &tc.opts})
			switch {
			case tc.errno == 0 && !resp.Success:
				t.Error(text(resp))
			case tc.errno != 0 && (resp.Success || resp.CrErrno == nil || *resp.CrErrno != int32(tc.errno) || !strings.Contains(text(resp), tc.says)):
				t.Errorf("%+v, %s; want %v and %q", resp, text(resp), tc.errno, tc.says)
			}
		})
	}
	v.MustVerify()
}
