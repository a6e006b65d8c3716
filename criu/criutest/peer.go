package criutest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
)

// A Peer stands in for CRIU. What it is asked is recorded, in the order of conversations.
type Peer struct {
	t       testing.TB
	dir     string // what a child process needs, and the records of all conversations
	scripts []Script
	stop    chan struct{}
	running sync.WaitGroup

	mu   sync.Mutex
	open map[*Conn]bool
}

// NewPeer returns a peer for the test. Each conversation follows a script of its own; the last one is for all further
// conversations, too. Without a script the peer behaves: [Serve].
//
// A peer in this process that cannot follow its script fails the test.
func NewPeer(t testing.TB, scripts ...Script) *Peer {
	t.Helper()
	if len(scripts) == 0 {
		scripts = []Script{{Serve()}}
	}
	// Not the test's own directory, whose name may be too long for a socket.
	dir, err := os.MkdirTemp("", "criutest-")
	if err != nil {
		t.Fatal(err)
	}
	p := &Peer{t: t, dir: dir, scripts: scripts, stop: make(chan struct{}), open: make(map[*Conn]bool)}
	t.Cleanup(p.shutdown)
	return p
}

// shutdown ends all conversations in this process and waits for that.
func (p *Peer) shutdown() {
	close(p.stop)
	p.mu.Lock()
	for c := range p.open {
		c.conn.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
	if err := os.RemoveAll(p.dir); err != nil {
		p.t.Error(err)
	}
}

// Service starts listening on a service socket and returns a transport to it.
func (p *Peer) Service() *criu.Service {
	p.t.Helper()
	path := filepath.Join(p.dir, "socket")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		p.t.Fatal(err)
	}
	p.running.Go(func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			p.serve(&Conn{conn: conn})
		}
	})
	p.running.Go(func() {
		<-p.stop
		l.Close()
	})
	return &criu.Service{Path: path}
}

// FD returns a transport of a descriptor that is connected to the peer: good for one conversation, as every [criu.FD].
func (p *Peer) FD() *criu.FD {
	p.t.Helper()
	f, err := p.connect()
	if err != nil {
		p.t.Fatal(err)
	}
	return &criu.FD{File: f}
}

// Transport returns a transport that connects to the peer in this process for each conversation.
func (p *Peer) Transport() criu.Transport {
	return Dialer(func(context.Context) (criu.Transport, error) {
		f, err := p.connect()
		if err != nil {
			return nil, err
		}
		return &criu.FD{File: f}, nil
	})
}

// connect makes a pair of sockets, of which one is the peer's.
func (p *Peer) connect() (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours := os.NewFile(uintptr(pair[0]), "scripted peer")
	c, err := newConn(os.NewFile(uintptr(pair[1]), "scripted peer's end"))
	if err != nil {
		ours.Close()
		return nil, err
	}
	p.serve(c)
	return ours, nil
}

// serve runs the next script on a conversation.
func (p *Peer) serve(c *Conn) {
	number, err := p.begin()
	if err != nil {
		p.t.Error(err)
		c.conn.Close()
		return
	}
	c.stop, c.record = p.stop, recorder(p.dir, number)
	p.mu.Lock()
	p.open[c] = true
	p.mu.Unlock()
	p.running.Go(func() {
		if err := c.run(p.script(number)); err != nil {
			p.t.Errorf("scripted peer, conversation %d: %v", number, err)
		}
		c.conn.Close()
		p.mu.Lock()
		delete(p.open, c)
		p.mu.Unlock()
	})
}

func (p *Peer) script(number int) Script { return p.scripts[min(number, len(p.scripts)-1)] }

func (p *Peer) begin() (int, error) { return beginRecord(p.dir) }

// Swrk returns a transport that starts the peer as a child process for each conversation: the test program itself,
// whose TestMain has to call [ServeSwrk].
func (p *Peer) Swrk() *criu.Swrk {
	p.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	text, err := json.Marshal(p.scripts)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "scripts"), text, 0o600); err != nil {
		p.t.Fatal(err)
	}
	// A program with the race detector would sleep for a second before it exits.
	return &criu.Swrk{Path: exe, Env: append(os.Environ(), envPeer+"="+p.dir, "GORACE=atexit_sleep_ms=0")}
}

// Conversations returns what was received so far, by conversation.
func (p *Peer) Conversations() [][]*rpc.Req {
	p.t.Helper()
	var all [][]*rpc.Req
	for number := 0; ; number++ {
		buf, err := os.ReadFile(recordPath(p.dir, number))
		if errors.Is(err, fs.ErrNotExist) {
			return all
		}
		if err != nil {
			p.t.Fatal(err)
		}
		reqs := []*rpc.Req{}
		for len(buf) >= 4 && int(binary.NativeEndian.Uint32(buf)) <= len(buf)-4 {
			size := int(binary.NativeEndian.Uint32(buf))
			req := new(rpc.Req)
			if err := req.Decode(buf[4 : 4+size]); err != nil {
				p.t.Fatalf("conversation %d: %v", number, err)
			}
			reqs, buf = append(reqs, req), buf[4+size:]
		}
		all = append(all, reqs)
	}
}

// Requests returns what was received so far in all conversations, answers to notifications included.
func (p *Peer) Requests() []*rpc.Req {
	p.t.Helper()
	var all []*rpc.Req
	for _, c := range p.Conversations() {
		all = append(all, c...)
	}
	return all
}

func recordPath(dir string, number int) string {
	return filepath.Join(dir, "conversation."+strconv.Itoa(number))
}

// beginRecord takes the next number: processes and goroutines may be at it at the same time.
func beginRecord(dir string) (int, error) {
	for number := 0; ; number++ {
		f, err := os.OpenFile(recordPath(dir, number), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return number, f.Close()
	}
}

// recorder returns a function that adds a packet to a conversation's record, in one write.
func recorder(dir string, number int) func([]byte) error {
	return func(packet []byte) error {
		f, err := os.OpenFile(recordPath(dir, number), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(append(binary.NativeEndian.AppendUint32(nil, uint32(len(packet))), packet...))
		return errors.Join(err, f.Close())
	}
}

// A Dialer is a Transport that gets another one for each conversation: for descriptors, which are good for one only.
type Dialer func(context.Context) (criu.Transport, error)

// Open gets a transport and opens a conversation with it.
func (d Dialer) Open(ctx context.Context, call criu.Call) (criu.Conn, error) {
	t, err := d(ctx)
	if err != nil {
		return nil, &criu.Error{Stage: "connect", Kind: criu.ErrConnect, Err: fmt.Errorf("dial: %w", err)}
	}
	conn, err := t.Open(ctx, call)
	if fd, ok := t.(*criu.FD); ok && err != nil {
		fd.File.Close() // what was refused was not taken over
	}
	return conn, err
}

// String names the peer.
func (d Dialer) String() string { return "dialled peer" }
