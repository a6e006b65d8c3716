//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/image"
)

// New returns the engine as a peer that answers CRIU RPC in this process. It must not be used where something waits for
// any child of the process: such a wait would take the stops of processes from the engine.
func New() criu.Transport { return transport{} }

type transport struct{}

func (transport) String() string { return "the built-in engine" }

// Open starts a conversation.
func (transport) Open(_ context.Context, call criu.Call) (criu.Conn, error) {
	switch {
	case call.SelfDump:
		return nil, fmt.Errorf("a process cannot dump itself by the engine inside it: %w", criu.ErrUnsupported)
	case call.Caller != nil:
		return nil, fmt.Errorf("the engine acts for its own process only: %w", criu.ErrUnsupported)
	}
	c := &conn{files: call.Files, messages: make(chan *criu.Message), answers: make(chan bool, 1)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// A conn runs a request on a goroutine of its own, which speaks to the caller by messages and waits for the answers to
// its notifications.
type conn struct {
	files    []*os.File
	ctx      context.Context // ends with Abort and Close
	cancel   context.CancelFunc
	messages chan *criu.Message
	answers  chan bool
	asked    bool          // a notification waits for its answer
	done     chan struct{} // closed when the request is done; nil when there is none
}

// Send starts a request, or answers a notification.
func (c *conn) Send(_ context.Context, req *rpc.Req) error {
	switch {
	case c.asked:
		c.asked = false
		c.answers <- isSet(req.NotifySuccess)
		return nil
	case c.done != nil:
		return fmt.Errorf("%w: a request is under way", criu.ErrTransport)
	}
	c.done = make(chan struct{})
	go func() {
		defer close(c.done)
		resp := &rpc.Resp{Type: req.Type, Success: true}
		err := perform(c.ctx, req, resp, c.notify)
		if err != nil {
			resp.Success = false
			resp.CrErrmsg = new(err.Error())
			var errno syscall.Errno
			if errors.As(err, &errno) {
				resp.CrErrno = new(int32(errno))
			}
		}
		_ = c.say(&criu.Message{Resp: resp, Detail: err})
	}()
	return nil
}

// say hands a message to whoever receives.
func (c *conn) say(m *criu.Message) error {
	select {
	case c.messages <- m:
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

// notify tells a stage and waits until the caller says to go on.
func (c *conn) notify(stage string, pid int) error {
	n := &rpc.Notify{Script: &stage}
	if pid != 0 {
		n.PID = new(int32(pid))
	}
	if err := c.say(&criu.Message{Resp: &rpc.Resp{Type: rpc.ReqNotify, Success: true, Notify: n}}); err != nil {
		return err
	}
	select {
	case goOn := <-c.answers:
		if !goOn {
			return fmt.Errorf("stage %s: the caller refused to go on", stage)
		}
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

// Recv waits for a notification or the answer.
func (c *conn) Recv(ctx context.Context) (*criu.Message, error) {
	if c.done == nil {
		return nil, fmt.Errorf("%w: nothing was asked", criu.ErrTransport)
	}
	select {
	case m := <-c.messages:
		if c.asked = m.Resp.Type == rpc.ReqNotify; !c.asked {
			<-c.done
			c.done = nil
		}
		return m, nil
	case <-c.ctx.Done():
		return nil, fmt.Errorf("%w: the conversation has ended", criu.ErrTransport)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// FileNumber is the number of a descriptor here, which is the caller's own.
func (c *conn) FileNumber(i int) int { return int(c.files[i].Fd()) }

// Abort ends the operation that is under way, whose process goes on as it was, or was not made.
func (c *conn) Abort() bool {
	c.cancel()
	return true
}

// Close ends the conversation, and with it what is under way.
func (c *conn) Close() error {
	c.cancel()
	if c.done != nil {
		<-c.done
	}
	return nil
}

func perform(ctx context.Context, req *rpc.Req, resp *rpc.Resp, notify func(string, int) error) (err error) {
	opts := req.Opts
	if opts == nil {
		opts = &rpc.Opts{ImagesDirFD: -1}
	}
	defer func() {
		if lerr := logTo(opts, err); lerr != nil {
			err = errors.Join(err, lerr)
		}
	}()
	if !isSet(opts.NotifyScripts) {
		notify = nil
	}
	switch req.Type {
	case rpc.ReqDump:
		return performDump(ctx, opts, notify)
	case rpc.ReqRestore:
		pid, err := performRestore(ctx, opts, notify)
		resp.Restore = &rpc.RestoreResp{PID: int32(pid)}
		return err
	default:
		return fmt.Errorf("%v: %w by the built-in engine", req.Type, errors.ErrUnsupported)
	}
}

func performDump(ctx context.Context, opts *rpc.Opts, notify func(string, int) error) error {
	if err := refuse(opts, "PID", "LeaveRunning", "LeaveStopped"); err != nil {
		return err
	}
	if opts.PID == nil {
		return fmt.Errorf("a dump of the caller: %w", errors.ErrUnsupported)
	}
	d, err := imagesDir(opts)
	if err != nil {
		return err
	}
	err = Dump(ctx, DumpOptions{
		PID: int(*opts.PID), Images: d, LeaveRunning: isSet(opts.LeaveRunning), LeaveStopped: isSet(opts.LeaveStopped), Stage: notify,
	})
	return errors.Join(err, d.Close())
}

func performRestore(ctx context.Context, opts *rpc.Opts, notify func(string, int) error) (int, error) {
	// The process is a child of this one in any case.
	if err := refuse(opts, "RstSibling"); err != nil {
		return 0, err
	}
	d, err := imagesDir(opts)
	if err != nil {
		return 0, err
	}
	pid, err := Restore(ctx, RestoreOptions{Images: d, Stage: notify})
	return pid, errors.Join(err, d.Close())
}

func isSet(b *bool) bool { return b != nil && *b }

// refuse refuses all options that are set but the known ones and those of every request.
func refuse(opts *rpc.Opts, known ...string) error {
	known = append(known, "ImagesDirFD", "ImagesDir", "WorkDirFD", "NotifyScripts", "LogLevel", "LogFile", "LogToStderr")
	v := reflect.ValueOf(opts).Elem()
	var set []string
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		field := v.Field(i)
		if field.Kind() == reflect.Pointer && !field.IsNil() && field.Elem().Kind() == reflect.Bool && !field.Elem().Bool() {
			continue // set to what it is without
		}
		if !field.IsZero() && !strings.Contains(" "+strings.Join(known, " ")+" ", " "+name+" ") {
			set = append(set, name)
		}
	}
	if len(set) > 0 {
		return fmt.Errorf("%w by the built-in engine: options %s", errors.ErrUnsupported, strings.Join(set, ", "))
	}
	return nil
}

func imagesDir(opts *rpc.Opts) (image.Dir, error) {
	if opts.ImagesDirFD >= 0 {
		return image.OpenDir(fmt.Sprintf("/proc/self/fd/%d", opts.ImagesDirFD))
	}
	if opts.ImagesDir != nil {
		return image.OpenDir(*opts.ImagesDir)
	}
	return nil, fmt.Errorf("no directory for the images: %w", unix.EINVAL)
}

// logTo writes the log file that was asked for: the error, if there was one, as CRIU writes it.
func logTo(opts *rpc.Opts, failure error) error {
	if opts.LogFile == nil || *opts.LogFile == "" {
		return nil
	}
	dir := fmt.Sprintf("/proc/self/fd/%d", opts.ImagesDirFD)
	if opts.WorkDirFD != nil {
		dir = fmt.Sprintf("/proc/self/fd/%d", *opts.WorkDirFD)
	} else if opts.ImagesDirFD < 0 && opts.ImagesDir != nil {
		dir = *opts.ImagesDir
	}
	var text strings.Builder
	if failure != nil {
		for line := range strings.SplitSeq(failure.Error(), "\n") {
			fmt.Fprintf(&text, "(00.000000) Error (engine): %s\n", line)
		}
	}
	return os.WriteFile(filepath.Join(dir, filepath.Base(*opts.LogFile)), []byte(text.String()), 0o600)
}
