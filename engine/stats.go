//go:build amd64

package engine

import (
	"fmt"
	"io"

	"stasis.example/criu/rpc"
	"stasis.example/engine/internal/apply"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// writeStats writes the statistics of an operation. They are written before what cannot be taken back, so that a disk that is full
// is no reason to call failed what was done.
func writeStats(work image.Dir, typ image.Type, stats *entry.Stats) error {
	if err := image.WriteAll(work, typ, 0, stats); err != nil {
		return fmt.Errorf("the statistics cannot be written (--work-dir says where): %w", err)
	}
	return nil
}

// displayDump prints the statistics of a dump, in CRIU's words: programs look for them.
func displayDump(w io.Writer, s *entry.DumpStats) error {
	p := &printer{w: w}
	p.line("Displaying dump stats:")
	p.time("Freezing time", s.FreezingTime)
	p.time("Frozen time", s.FrozenTime)
	p.time("Memory dump time", s.MemdumpTime)
	p.time("Memory write time", s.MemwriteTime)
	p.time("IRMAP resolve time", s.GetIrmapResolve())
	p.count("Memory pages scanned", s.PagesScanned)
	p.count("Memory pages skipped from parent", s.PagesSkippedParent)
	p.count("Memory pages written", s.PagesWritten)
	p.count("Lazy memory pages", s.PagesLazy)
	return p.err
}

// displayRestore does the same for a restore.
func displayRestore(w io.Writer, s *entry.RestoreStats) error {
	p := &printer{w: w}
	p.line("Displaying restore stats:")
	p.count("Pages compared", s.PagesCompared)
	p.count("Pages skipped COW", s.PagesSkippedCow)
	p.count("Pages restored", s.GetPagesRestored())
	p.time("Restore time", s.RestoreTime)
	p.time("Forking time", s.ForkingTime)
	return p.err
}

// A printer prints lines until one fails.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err != nil {
		return
	}
	if _, err := fmt.Fprintf(p.w, format+"\n", args...); err != nil {
		p.err = fmt.Errorf("statistics: %w", err)
	}
}

func (p *printer) time(name string, microseconds uint32) { p.line("%s: %d us", name, microseconds) }

func (p *printer) count(name string, n uint64) { p.line("%s: %d (%#x)", name, n, n) }

// validation says how files are compared with those of the dump.
func (e *Engine) validation(files *apply.Files, opts *rpc.Opts) {
	files.CheckSize, files.CheckBuildID = true, e.settings.FileValidation != "filesize"
	files.SkipMode = value(opts.SkipFileRWXCheck)
}
