//go:build amd64

package engine

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/state/creds"
	"stasis.example/engine/internal/state/files"
	"stasis.example/engine/internal/state/mem"
	"stasis.example/engine/internal/state/signals"
	"stasis.example/engine/internal/state/threads"
	"stasis.example/engine/internal/state/timers"
	"stasis.example/image"
	"stasis.example/image/entry"
)

const (
	pageSize = 4096
	pagesID  = 1 // of the only pages file
	tableID  = 2 // of the only descriptor table
)

// write writes the images, the inventory last: a directory without one is no dump.
func (d *dumper) write() error {
	fe, err := files.NewEncoder(d.images)
	if err != nil {
		return err
	}
	err = errors.Join(
		d.writePages(),
		d.writeMM(fe),
		files.Encode(d.images, fe, tableID, &d.task),
		fe.Close(),
		d.writeCores(),
		d.writeTree(),
	)
	if err != nil {
		return err
	}
	noLSM := entry.LSMTypeNoLSM
	return image.WriteAll(d.images, image.Inventory, 0, &entry.Inventory{
		ImgVersion: 2, FDInfoPerID: new(true), NSPerID: new(true), RootIDs: ids(1, 1), RootCGSet: new(uint32(1)), LSMType: &noLSM,
	})
}

// ids are the numbers of the kernel objects of a process that shares none. Namespaces are those of the root.
func ids(own, table uint32) *entry.TaskKobjIDs {
	return &entry.TaskKobjIDs{
		VMID: own, FilesID: table, FSID: own, SighandID: own,
		PIDNSID: new(uint32(1)), NetNSID: new(uint32(2)), IPCNSID: new(uint32(3)), UtsNSID: new(uint32(4)),
		TimeNSID: new(uint32(5)), MntNSID: new(uint32(6)), UserNSID: new(uint32(7)), CgroupNSID: new(uint32(8)),
	}
}

func (d *dumper) writeTree() error {
	t := &d.task
	// The root has no parent in the tree.
	e := &entry.PSTree{PID: uint32(t.PID), PGID: uint32(t.PGID), SID: uint32(t.SID)}
	for i := range t.Threads {
		e.Threads = append(e.Threads, uint32(t.Threads[i].TID))
	}
	return errors.Join(
		image.WriteAll(d.images, image.PSTree, 0, e),
		image.WriteAll(d.images, image.IDs, uint64(t.PID), ids(tableID, tableID)),
	)
}

func (d *dumper) writeCores() error {
	t := &d.task
	for i := range t.Threads {
		th := &t.Threads[i]
		c := &entry.Core{ThreadCore: &entry.ThreadCore{CGSet: new(uint32(1))}}
		threads.Encode(th, c)
		signals.EncodeThread(th, c.ThreadCore)
		creds.EncodeThread(th, c.ThreadCore)
		if i == 0 {
			c.TC = &entry.TaskCore{TaskState: entry.TaskAlive, Comm: t.Comm, Flags: t.Flags, CGSet: new(uint32(1))}
			if t.Stopped {
				c.TC.TaskState = entry.TaskStopped
			}
			signals.Encode(t, c.TC)
			timers.Encode(t, c.TC)
			creds.Encode(t, c.TC)
		}
		if err := image.WriteAll(d.images, image.Core, uint64(th.TID), c); err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) writeMM(fe *files.Encoder) error {
	t := &d.task
	e := mem.Encode(&t.MM, func(f *snapshot.File) uint32 { return fe.ID(t.PID, f) })
	e.ExeFileID = fe.ID(t.PID, &t.Exe)
	return image.WriteAll(d.images, image.MM, uint64(t.PID), e)
}

// writePages writes the pages and their map.
func (d *dumper) writePages() error {
	w, err := image.CreatePagemap(d.images, image.Pagemap, uint64(d.task.PID), pagesID, pageSize)
	if err != nil {
		return err
	}
	for _, r := range d.task.MM.Pages {
		if err = w.Add(image.PageRun{Addr: r.Start, Pages: (r.End - r.Start) / pageSize, Flags: image.PagePresent}); err != nil {
			break
		}
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	f, err := d.images.Create(image.Pages.File(pagesID))
	if err != nil {
		return err
	}
	return errors.Join(d.copyPages(f), f.Close())
}

// copyPages lets the process write its own pages, where the images are files; else they are copied.
func (d *dumper) copyPages(f image.NewFile) error {
	var err error
	if fd, ok := image.FD(f); ok {
		err = d.selfWrite(int(fd))
	} else {
		err = d.copyOut(f)
	}
	if err != nil {
		return err
	}
	return d.cleanBootPage(f)
}

// selfWrite gives the process the file and lets it write, by as few calls as the kernel's limits on vectors and a word
// from us in between allow.
func (d *dumper) selfWrite(fd int) error {
	p := d.p
	given, err := p.GiveFile(fd)
	if err != nil {
		return err
	}
	at, room := p.Data()
	var vectors []byte
	var calls []remote.Call
	var want []uint64
	flush := func() error {
		if len(calls) == 0 {
			return nil
		}
		if err := p.Write(at, vectors); err != nil {
			return err
		}
		if _, err := p.RunBulk(calls); err != nil {
			return err
		}
		for i := range calls {
			if err := calls[i].Err(); err != nil {
				return fmt.Errorf("write pages: %w", err)
			}
			if calls[i].Ret != want[i] {
				return fmt.Errorf("write pages: %d of %d bytes: %w", calls[i].Ret, want[i], unix.ENOSPC)
			}
		}
		vectors, calls, want = nil, nil, nil
		return nil
	}
	const chunk, vectorSize, maxVectors = 8 << 20, 16, 1024
	var offset uint64
	for _, piece := range pieces(d.task.MM.Pages, chunk) {
		// A piece joins the call before it as long as that stays small enough to look up after.
		last := len(calls) - 1
		if last >= 0 && want[last]+piece.End-piece.Start <= chunk && calls[last].Args[2] < maxVectors && len(vectors)+vectorSize <= int(room) {
			calls[last].Args[2]++
			want[last] += piece.End - piece.Start
		} else {
			if len(vectors)+vectorSize > int(room) || len(calls) == maxCalls {
				if err := flush(); err != nil {
					return errors.Join(err, p.TakeBack(given))
				}
			}
			calls = append(calls, remote.NewCall(unix.SYS_PWRITEV, given, at+uint64(len(vectors)), 1, offset))
			want = append(want, piece.End-piece.Start)
		}
		vectors = appendVector(vectors, piece)
		offset += piece.End - piece.Start
	}
	return errors.Join(flush(), p.TakeBack(given))
}

const maxCalls = 256

// pieces cuts runs into pieces of a length at most.
func pieces(runs []snapshot.PageRun, most uint64) (cut []snapshot.PageRun) {
	for _, r := range runs {
		for at := r.Start; at < r.End; at += most {
			cut = append(cut, snapshot.PageRun{Start: at, End: min(at+most, r.End)})
		}
	}
	return cut
}

func appendVector(b []byte, r snapshot.PageRun) []byte {
	for _, v := range []uint64{r.Start, r.End - r.Start} {
		for i := range 8 {
			b = append(b, byte(v>>(8*i)))
		}
	}
	return b
}

// copyOut copies the pages through us.
func (d *dumper) copyOut(w io.Writer) error {
	buf := make([]byte, 1<<20)
	for _, r := range pieces(d.task.MM.Pages, uint64(len(buf))) {
		b := buf[:r.End-r.Start]
		if err := d.p.Read(r.Start, b); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// cleanBootPage writes the page that the boot block lies in once more, without it and what dead engines have left there.
func (d *dumper) cleanBootPage(f io.WriterAt) error {
	page := d.p.BootPage()
	var offset uint64
	for _, r := range d.task.MM.Pages {
		if page < r.Start || page >= r.End {
			offset += r.End - r.Start
			continue
		}
		b := make([]byte, pageSize)
		if err := d.p.Read(page, b); err != nil {
			return err
		}
		_, err := f.WriteAt(remote.WithoutBlock(b), int64(offset+page-r.Start))
		return err
	}
	return nil
}
