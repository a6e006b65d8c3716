package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
)

// IterativeOptions are the options of a dump that is preceded by rounds of pre-dumps.
type IterativeOptions struct {
	// Dump are the options of the final dump and, as far as they apply, of every round. Its images directory is the
	// base: the rounds go into directories 1, 2, 3, … below it, the final dump into the next, each with the one before
	// as its parent. ParentImages, if set, is the first round's parent.
	Dump DumpOptions

	// PreDumpMode says how the rounds read memory.
	PreDumpMode PreDumpMode

	// More is called after each round and says whether another one follows; false leads to the final dump. An error
	// ends it all: the tree runs on, and what was written stays.
	More func(ctx context.Context, r Round) (bool, error)
}

// Round is a round of pre-dump that was done.
type Round struct {
	N       int           // 1 for the first
	Dir     string        // name of its directory below the base
	Elapsed time.Duration // from request to response
	Stats   *DumpStats    // read from its stats-dump; nil where the peer wrote none
}

// IterativeResult is the answer to an iterative dump.
type IterativeResult struct {
	Rounds int    // of pre-dump
	Dir    string // name of the final dump's directory below the base: what a restore needs
}

// DumpIterative copies the tree's memory in rounds while it runs, and then dumps it, so that it stands still only for
// what it changed last. All requests go over one conversation. The kernel has to be able to track memory changes: see
// [Client.Features].
func (c *Client) DumpIterative(ctx context.Context, o IterativeOptions) (IterativeResult, error) {
	const name = "iterative dump"
	bad := func(err error) (IterativeResult, error) {
		return IterativeResult{}, &Error{Op: name, Stage: "options", PID: o.Dump.PID, Peer: c.transport.String(),
			Kind: ErrOptions, Errno: errnoOf(err), Err: err}
	}
	if o.More == nil {
		return bad(errors.New("no More function is set, which decides when the rounds end"))
	}
	if o.Dump.PeerImagesDir != "" {
		return bad(errors.New("the option PeerImagesDir is set; the rounds' directories are made by the client, which needs ImagesDir or ImagesDirFile"))
	}
	e := newEncoder()
	defer e.close()
	e.imagesDir(o.Dump.ImagesDir, o.Dump.ImagesDirFile, "")
	if err := e.err(); err != nil {
		return bad(err)
	}
	if e.imgDir == nil {
		return bad(errors.New("no images directory is set"))
	}
	it := &iteration{client: c, o: o, base: e.imgDir}
	defer it.close()
	for n := 1; ; n++ {
		start := time.Now()
		if err := it.ask(ctx, name, rpc.ReqPreDump, n); err != nil {
			return IterativeResult{}, err
		}
		round := Round{N: n, Dir: itoa(n), Elapsed: time.Since(start), Stats: it.stats()}
		more, err := o.More(ctx, round)
		if err != nil {
			return IterativeResult{}, &Error{Op: name, PID: o.Dump.PID, Peer: c.transport.String(), Kind: ErrRefused, Err: err}
		}
		if !more {
			if err := it.ask(ctx, name, rpc.ReqDump, n+1); err != nil {
				return IterativeResult{}, err
			}
			return IterativeResult{Rounds: n, Dir: itoa(n + 1)}, nil
		}
	}
}

// iteration is an iterative dump under way.
type iteration struct {
	client *Client
	o      IterativeOptions
	base   *os.File
	conv   *conversation // opened by the first round
	enc    *encoder      // of the current round
}

func (it *iteration) close() {
	if it.conv != nil {
		it.conv.close()
	}
	if it.enc != nil {
		it.enc.close()
	}
}

// ask sends the request of round n, with a directory and options of its own.
func (it *iteration) ask(ctx context.Context, name string, t rpc.ReqType, n int) error {
	o := it.o.Dump
	op := operation{name: name, pid: o.PID, notify: o.Notify, writes: true, call: Call{Op: rpc.ReqPreDump}}
	e := newEncoder()
	e.needPID(o.PID)
	o.ImagesDir = ""
	dir, err := it.makeDir(itoa(n))
	if err != nil {
		e.problems = append(e.problems, err)
	} else {
		e.dirs = append(e.dirs, dir)
	}
	o.ImagesDirFile = dir
	if n > 1 {
		o.ParentImages = "../" + itoa(n-1)
	}
	o.TrackMem = true
	if t == rpc.ReqPreDump {
		o.LeaveRunning, o.LeaveStopped = false, false // as every pre-dump does, without being asked
		word(e, &e.opts.PreDumpMode, "PreDumpMode", it.o.PreDumpMode, preDumpModeWords)
	}
	o.encode(e)
	e.checkDump(&o)
	if it.enc != nil {
		it.enc.close()
	}
	it.enc, op.enc = e, e
	if it.conv == nil {
		if it.conv, err = it.client.open(ctx, op); err != nil {
			it.conv = nil
			return err
		}
	} else {
		it.conv.operation, it.conv.stage = op, ""
		if err := e.err(); err != nil {
			return it.conv.fail(&Error{Stage: "options", Kind: ErrOptions, Errno: errnoOf(err), Err: err})
		}
		e.patch(it.conv.conn.FileNumber)
	}
	msg, err := it.conv.ask(ctx, &rpc.Req{Type: t, Opts: e.opts})
	if err != nil {
		return err
	}
	msg.closeFiles()
	return nil
}

func (it *iteration) makeDir(name string) (*os.File, error) {
	base := int(it.base.Fd())
	path := it.base.Name() + "/" + name
	if err := unix.Mkdirat(base, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("directory of a round: %w", &os.PathError{Op: "mkdir", Path: path, Err: err})
	}
	fd, err := unix.Openat(base, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("directory of a round: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	return os.NewFile(uintptr(fd), path), nil
}

// stats reads the statistics of the round that was just done: CRIU leaves them in the work directory.
func (it *iteration) stats() *DumpStats {
	if it.enc.logDir == nil {
		return nil
	}
	s, err := readDumpStatsAt(it.enc.logDir)
	if err != nil {
		return nil
	}
	return s
}
