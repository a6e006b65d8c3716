package ceiling

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	uid, gid = 1000, 1000
	bound    = snapshot.Capabilities(1<<41 - 1)
)

// user is a client without any privilege, under limits of all kinds.
func user() *Client {
	c := &Client{UID: uid, GID: gid, Groups: []uint32{gid, 20}, Bounding: bound, LoginUID: uid, OOMScoreAdj: 100, Nice: 5}
	for range 16 {
		c.Limits = append(c.Limits, snapshot.Limit{Soft: 0, Hard: 1000})
	}
	return c
}

// root is a client that can everything.
func root() *Client {
	return &Client{Permitted: bound, Effective: bound, Bounding: bound, LoginUID: unsetLogin, Limits: make([]snapshot.Limit, 16)}
}

// own is a tree that a user may have: its own.
func own() *snapshot.Tree {
	here := snapshot.Namespaces{PID: 1, Net: 2, IPC: 3, UTS: 4, Mount: 5, User: 6, Cgroup: 7, Time: 8}
	t := &snapshot.Tree{Origin: snapshot.Origin{Namespaces: here}}
	t.Files = []*snapshot.File{{ID: 1, Object: &snapshot.Regular{Path: snapshot.Path{Name: "/"}}}}
	t.FSContexts = []*snapshot.FSContext{{ID: 1, Cwd: 1, Root: 1}}
	creds := snapshot.Credentials{UID: uid, EUID: uid, SUID: uid, FSUID: uid, GID: gid, EGID: gid, SGID: gid, FSGID: gid, Groups: []uint32{20}, Bounding: bound}
	task := &snapshot.Task{PID: snapshot.PID{42}, State: snapshot.Running, FS: 1, Namespaces: here, LoginUID: new(uint32(uid)), OOMScoreAdj: new(int32(100))}
	for range 16 {
		task.Limits = append(task.Limits, snapshot.Limit{Soft: 1000, Hard: 1000})
	}
	for _, tid := range []int{42, 43} {
		task.Threads = append(task.Threads, &snapshot.Thread{TID: snapshot.PID{tid}, Creds: creds, Scheduling: snapshot.Scheduling{Nice: 5}})
	}
	t.Tasks = []*snapshot.Task{task, {PID: snapshot.PID{44}, State: snapshot.Dead}}
	return t
}

// Every rule forbids what it is there for, names the process, and nothing else says a word. Who has the capability for it may.
func TestRules(t *testing.T) {
	type change = func(c *Client, tree *snapshot.Tree, th *snapshot.Thread)
	for _, tc := range []struct {
		rule   Rule
		name   string
		change change
		cap    int // what allows it; -1 for nothing
	}{
		{IDs, "uid", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.UID = 0 }, unix.CAP_SETUID},
		{IDs, "effective uid", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.EUID = 0 }, unix.CAP_SETUID},
		{IDs, "saved uid", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.SUID = 0 }, unix.CAP_SETUID},
		{IDs, "file system uid", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.FSUID = 0 }, unix.CAP_SETUID},
		{IDs, "gid", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.SGID = 0 }, unix.CAP_SETGID},
		{IDs, "group", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.Groups = []uint32{20, 0} }, unix.CAP_SETGID},
		{Capabilities, "permitted", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.Permitted = 1 << unix.CAP_KILL }, -1},
		{Capabilities, "effective", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.Effective = 1 << unix.CAP_KILL }, -1},
		{Capabilities, "ambient", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.Ambient = 1 << unix.CAP_KILL }, -1},
		{Capabilities, "inheritable", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.Inheritable = 1 << unix.CAP_KILL }, -1},
		{Capabilities, "that of the worker", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) {
			th.Creds.Permitted = 1 << unix.CAP_CHECKPOINT_RESTORE
		}, -1},
		{Bounding, "bounding", func(c *Client, _ *snapshot.Tree, _ *snapshot.Thread) { c.Bounding &^= 1 << unix.CAP_NET_RAW }, -1},
		{SecureBits, "locked", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.SecureBits = 3 }, unix.CAP_SETPCAP},
		{NoNewPrivs, "shed", func(c *Client, tree *snapshot.Tree, th *snapshot.Thread) {
			for _, other := range tree.Tasks[0].Threads {
				other.Creds.NoNewPrivs = other != th
			}
			c.NoNewPrivs = true
		}, -1},
		{Seccomp, "filter", func(c *Client, _ *snapshot.Tree, _ *snapshot.Thread) { c.Seccomp = snapshot.SeccompFilter }, -1},
		{Seccomp, "strict", func(c *Client, _ *snapshot.Tree, _ *snapshot.Thread) { c.Seccomp = snapshot.SeccompStrict }, -1},
		{Limits, "more", func(_ *Client, tree *snapshot.Tree, _ *snapshot.Thread) {
			tree.Tasks[0].Limits[unix.RLIMIT_NOFILE].Hard = 1001
		}, unix.CAP_SYS_RESOURCE},
		{Limits, "without end", func(_ *Client, tree *snapshot.Tree, _ *snapshot.Thread) {
			tree.Tasks[0].Limits[unix.RLIMIT_CORE].Hard = 1<<64 - 1
		}, unix.CAP_SYS_RESOURCE},
		{Label, "shed", func(c *Client, _ *snapshot.Tree, _ *snapshot.Thread) { c.Label = "jail" }, unix.CAP_MAC_ADMIN},
		{Label, "another", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.LSMProfile = "init_t" }, unix.CAP_MAC_ADMIN},
		{Label, "of sockets", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.LSMSockCreate = "init_t" }, unix.CAP_MAC_ADMIN},
		{Cgroup, "left", func(c *Client, _ *snapshot.Tree, _ *snapshot.Thread) { c.OwnCgroup = true }, unix.CAP_SYS_ADMIN},
		{Namespaces, "left", func(c *Client, _ *snapshot.Tree, _ *snapshot.Thread) { c.Elsewhere = []string{"net"} }, unix.CAP_SYS_ADMIN},
		{Namespaces, "made", func(_ *Client, tree *snapshot.Tree, _ *snapshot.Thread) { tree.Tasks[0].Namespaces.User = 99 }, unix.CAP_SYS_ADMIN},
		{Root, "left", func(c *Client, _ *snapshot.Tree, _ *snapshot.Thread) { c.OwnRoot = true }, unix.CAP_SYS_CHROOT},
		{Root, "made", func(_ *Client, tree *snapshot.Tree, _ *snapshot.Thread) {
			tree.Files = append(tree.Files, &snapshot.File{ID: 2, Object: &snapshot.Regular{Path: snapshot.Path{Name: "/tmp/root"}}})
			tree.FSContexts[0].Root = 2
		}, unix.CAP_SYS_CHROOT},
		{RealTime, "FIFO", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) {
			th.Scheduling.Policy, th.Scheduling.Priority = schedFIFO|resetOnFork, 1
		}, unix.CAP_SYS_NICE},
		{RealTime, "deadline", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Scheduling.Policy = schedDeadline }, unix.CAP_SYS_NICE},
		{RealTime, "I/O", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) {
			th.Scheduling.IOPrio = new(uint32(ioRealTime << ioClassShift))
		}, unix.CAP_SYS_NICE},
		{Nice, "lower", func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Scheduling.Nice = 4 }, unix.CAP_SYS_NICE},
		{Nice, "not idle", func(c *Client, _ *snapshot.Tree, th *snapshot.Thread) {
			c.Policy, th.Scheduling.Policy = schedIdle, schedIdle
		}, unix.CAP_SYS_NICE},
		{OOMScore, "lower", func(_ *Client, tree *snapshot.Tree, _ *snapshot.Thread) { tree.Tasks[0].OOMScoreAdj = new(int32(99)) }, unix.CAP_SYS_RESOURCE},
		{OOMScore, "none", func(_ *Client, tree *snapshot.Tree, _ *snapshot.Thread) { tree.Tasks[0].OOMScoreAdj = nil }, unix.CAP_SYS_RESOURCE},
		{Owners, "another's name", func(_ *Client, tree *snapshot.Tree, _ *snapshot.Thread) {
			tree.Files[0].Owner = snapshot.Owner{PID: 1, UID: 0, EUID: uid}
		}, unix.CAP_KILL},
		{LoginUID, "another", func(_ *Client, tree *snapshot.Tree, _ *snapshot.Thread) { tree.Tasks[0].LoginUID = new(uint32(0)) }, unix.CAP_AUDIT_CONTROL},
		{LoginUID, "none", func(_ *Client, tree *snapshot.Tree, _ *snapshot.Thread) { tree.Tasks[0].LoginUID = nil }, unix.CAP_AUDIT_CONTROL},
	} {
		t.Run(string(tc.rule)+" "+tc.name, func(t *testing.T) {
			c, tree := user(), own()
			if err := Check(tree, c); err != nil {
				t.Fatalf("the client's own tree: %v", err)
			}
			tc.change(c, tree, tree.Tasks[0].Threads[1]) // rules look at every thread
			err := Check(tree, c)
			excess, ok := errors.AsType[Excess](err)
			if !ok || !errors.Is(err, unix.EPERM) {
				t.Fatalf("the error: %v", err)
			}
			for _, v := range excess {
				if v.Rule != tc.rule {
					t.Errorf("the rule %q says %q", v.Rule, v.Text)
				}
			}
			if err := Check(tree, c, tc.rule); err != nil {
				t.Errorf("without the rule: %v", err)
			}
			if tc.cap >= 0 {
				c.Effective = 1 << tc.cap
				if err := Check(tree, c); err != nil {
					t.Errorf("with capability %d: %v", tc.cap, err)
				}
			}
		})
	}
}

// What limits and the client's own state allow is allowed.
func TestAllowed(t *testing.T) {
	for name, change := range map[string]func(c *Client, tree *snapshot.Tree, th *snapshot.Thread){
		"a real-time priority within the limit": func(c *Client, _ *snapshot.Tree, th *snapshot.Thread) {
			c.Limits[unix.RLIMIT_RTPRIO].Soft = 10
			th.Scheduling.Policy, th.Scheduling.Priority = schedRR, 10
		},
		"a real-time priority like the client's": func(c *Client, _ *snapshot.Tree, th *snapshot.Thread) {
			c.Policy, c.Priority = schedFIFO, 3
			th.Scheduling.Policy, th.Scheduling.Priority = schedRR, 3
		},
		"a nice value within the limit": func(c *Client, _ *snapshot.Tree, th *snapshot.Thread) {
			c.Limits[unix.RLIMIT_NICE].Soft = 20
			th.Scheduling.Nice = 0
		},
		"less of everything": func(_ *Client, tree *snapshot.Tree, th *snapshot.Thread) {
			th.Creds.NoNewPrivs, th.Creds.Bounding, th.Scheduling.Nice = true, 0, 19
			tree.Tasks[0].OOMScoreAdj, tree.Tasks[0].Limits[unix.RLIMIT_NOFILE].Hard = new(int32(1000)), 3
		},
		"keep_caps":           func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) { th.Creds.SecureBits = keepCaps },
		"capabilities it has": func(c *Client, _ *snapshot.Tree, th *snapshot.Thread) { c.Permitted, th.Creds.Permitted = 8, 8 },
		"the client's label":  func(c *Client, tree *snapshot.Tree, _ *snapshot.Thread) { relabel(tree, "jail"); c.Label = "jail" },
		"its own signals": func(_ *Client, tree *snapshot.Tree, _ *snapshot.Thread) {
			tree.Files[0].Owner = snapshot.Owner{PID: 1, UID: uid, EUID: uid}
		},
		"a login uid of its own": func(c *Client, tree *snapshot.Tree, _ *snapshot.Thread) { c.LoginUID = unsetLogin },
		"a thread that has exited": func(_ *Client, _ *snapshot.Tree, th *snapshot.Thread) {
			*th = snapshot.Thread{TID: th.TID, Exited: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, tree := user(), own()
			change(c, tree, tree.Tasks[0].Threads[1])
			if err := Check(tree, c); err != nil {
				t.Error(err)
			}
		})
	}
	// Root may restore what a user had, and root's own.
	if err := Check(own(), root()); err != nil {
		t.Errorf("root: %v", err)
	}
}

func relabel(tree *snapshot.Tree, label string) {
	for _, th := range tree.Tasks[0].Threads {
		th.Creds.LSMProfile = label
	}
}

// A tree that is wrong in thousands of places makes no error of megabytes.
func TestErrorIsBounded(t *testing.T) {
	tree := own()
	for range 100000 {
		tree.Tasks[0].Threads = append(tree.Tasks[0].Threads, &snapshot.Thread{TID: snapshot.PID{50}})
	}
	if err := Check(tree, user()); err == nil || len(err.Error()) > 10000 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
}

// A process shares everything with itself, and has its own ids.
func TestRead(t *testing.T) {
	c, err := Read(os.Getpid(), uint32(os.Geteuid()), uint32(os.Getegid()), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.OwnCgroup || c.OwnRoot || len(c.Elsewhere) > 0 || len(c.Limits) != 16 || c.Bounding == 0 {
		t.Errorf("%+v", c)
	}
	if _, err := Read(os.Getpid(), 12345, 0, nil); err == nil || !strings.Contains(err.Error(), "has changed its ids") {
		t.Errorf("with another uid: %v", err)
	}
}
