package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"stasis.example/criu/rpc"
)

// Check asks the peer whether the kernel has what it needs.
func (c *Client) Check(ctx context.Context, o CheckOptions) error {
	e := newEncoder()
	o.encode(e)
	e.checkLogFile()
	if len(e.problems) == 0 && e.imgDir == nil && e.logDir == nil && e.opts.ImagesDir == nil && !o.LogToStderr {
		// CRIU before 4.2 dies of a CHECK without options, and with options wants a directory that is open; a log that
		// has a place tells why a check failed.
		dir, err := os.MkdirTemp("", "criu-check-")
		if err != nil {
			e.problem("no directory for the log: %w", err)
		} else {
			defer os.RemoveAll(dir)
			e.imagesDir(dir, nil, "")
			if o.LogFile == "" {
				e.opts.LogFile = new("check.log")
			}
		}
	}
	_, err := c.do(ctx, operation{name: "check", enc: e}, &rpc.Req{Type: rpc.ReqCheck})
	if failed, ok := errors.AsType[*Error](err); ok && o.ImagesDir == "" && o.ImagesDirFile == nil && o.WorkDir == "" && o.WorkDirFile == nil {
		failed.LogFile = "" // it is gone
	}
	return err
}

// Version is a peer's version.
type Version struct {
	Major, Minor, Sublevel, Extra int
	GitID                         string // set when the peer was built from an untagged tree
	Name                          string
}

// String is the version as CRIU writes it, such as 4.2.1.
func (v Version) String() string {
	s := fmt.Sprintf("%d.%d", v.Major, v.Minor)
	if v.Sublevel != 0 || v.Extra != 0 {
		s += fmt.Sprintf(".%d", v.Sublevel)
	}
	if v.Extra != 0 {
		s += fmt.Sprintf(".%d", v.Extra)
	}
	if v.GitID != "" {
		s += " (" + v.GitID + ")"
	}
	return s
}

// Number is the version as libcriu's criu_get_version() codes it: major·10000 + minor·100 + sublevel; a build from an
// untagged tree counts as the next minor version.
func (v Version) Number() int {
	n := v.Major*10000 + v.Minor*100
	if v.GitID != "" {
		return n + 100
	}
	return n + v.Sublevel
}

// AtLeast reports whether the version is major.minor or later.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// Version asks for the peer's version.
func (c *Client) Version(ctx context.Context) (Version, error) {
	msg, err := c.do(ctx, operation{name: "version"}, &rpc.Req{Type: rpc.ReqVersion})
	if err != nil {
		return Version{}, err
	}
	return c.version(msg)
}

func (c *Client) version(msg *Message) (Version, error) {
	msg.closeFiles()
	r := msg.Resp.Version
	if r == nil {
		return Version{}, c.protocolError("version", "the peer reported success without a version")
	}
	v := Version{Major: int(r.MajorNumber), Minor: int(r.MinorNumber)}
	if r.Sublevel != nil {
		v.Sublevel = int(*r.Sublevel)
	}
	if r.Extra != nil {
		v.Extra = int(*r.Extra)
	}
	if r.Gitid != nil {
		v.GitID = *r.Gitid
	}
	if r.Name != nil {
		v.Name = *r.Name
	}
	return v, nil
}

func (c *Client) protocolError(op, text string) error {
	return &Error{Op: op, Peer: c.transport.String(), Kind: ErrProtocol, Err: errors.New(text)}
}

// Features is what a peer can do on this kernel.
type Features struct {
	MemTrack       bool // tracking of memory changes, which pre-dumps need
	LazyPages      bool // restoring memory on demand
	PIDFDStore     bool // pidfds that tell reused pids
	MemCompression bool // compressed page images (CRIU 4.3; older ones never report it)
}

// Features asks for everything that a peer can report and returns its answer.
func (c *Client) Features(ctx context.Context) (Features, error) {
	msg, err := c.do(ctx, operation{name: "feature check"}, featureRequest())
	if err != nil {
		return Features{}, err
	}
	return c.features(msg)
}

// featureRequest asks for all features: CRIU's child crashes on a request without any.
func featureRequest() *rpc.Req {
	return &rpc.Req{Type: rpc.ReqFeatureCheck, Features: &rpc.Features{
		MemTrack: new(true), LazyPages: new(true), PidfdStore: new(true), MemCompression: new(true)}}
}

func (c *Client) features(msg *Message) (Features, error) {
	msg.closeFiles()
	f := msg.Resp.Features
	if f == nil {
		return Features{}, c.protocolError("feature check", "the peer reported success without features")
	}
	is := func(b *bool) bool { return b != nil && *b }
	return Features{MemTrack: is(f.MemTrack), LazyPages: is(f.LazyPages), PIDFDStore: is(f.PidfdStore), MemCompression: is(f.MemCompression)}, nil
}

// CPUInfoDump writes the CPU's capabilities into the images directory.
func (c *Client) CPUInfoDump(ctx context.Context, o CPUInfoOptions) error {
	_, err := c.cpuInfo(ctx, rpc.ReqCPUInfoDump, &o, c.do)
	return err
}

// CPUInfoCheck compares the CPU with the capabilities in the images directory. A CPU that lacks any is an error that
// matches ENOTSUP.
func (c *Client) CPUInfoCheck(ctx context.Context, o CPUInfoOptions) error {
	_, err := c.cpuInfo(ctx, rpc.ReqCPUInfoCheck, &o, c.do)
	return err
}

func (c *Client) cpuInfo(ctx context.Context, t rpc.ReqType, o *CPUInfoOptions,
	do func(context.Context, operation, *rpc.Req) (*Message, error)) (*Message, error) {
	e := newEncoder()
	o.encode(e)
	e.needImages()
	name := map[rpc.ReqType]string{rpc.ReqCPUInfoDump: "cpuinfo dump", rpc.ReqCPUInfoCheck: "cpuinfo check"}[t]
	msg, err := do(ctx, operation{name: name, enc: e, writes: t == rpc.ReqCPUInfoDump}, &rpc.Req{Type: t})
	if failed, ok := errors.AsType[*Error](err); ok && t == rpc.ReqCPUInfoCheck && failed.Errno == syscall.ENOTSUP && failed.Err == nil {
		failed.Err = errors.New("this CPU lacks capabilities that the images were made with")
	}
	return msg, err
}
