// Package proc reads /proc. It is made for checkpointing, where a line that was skipped is a mapping that is lost: what a
// parser does not understand is an error that quotes it, or is handed on as text where a newer kernel may rightly say more
// (unknown counters, unknown kinds of descriptors); nothing is dropped in silence and nothing is cut at a size.
//
// Parsing and reading are apart. Every format has a parser over an io.Reader; [FS] and [Dir] open the files. The root is a
// value of type fs.FS, so that a directory of captured files is a kernel:
//
//	p := proc.New(os.DirFS("/proc")).Process(42)
//	st, err := p.Status()
//	err = p.Smaps(func(m *proc.Smap) error { … })
//
// A root that implements fs.ReadLinkFS and fs.ReadDirFS is used through them; one over a directory descriptor
// saves the walk through "/proc" and the poller on each file.
//
// Addresses are uint64 on every machine: a 32-bit program can read the fixtures of a 64-bit kernel, and a tracer of one
// width can look at a process of the other. Text that the kernel escapes is unescaped, where that can be done without
// guessing; the comments say where it cannot.
//
// Errors about content are [*SyntaxError], under the name of the file. A process that goes away while it is read gives
// fs.ErrNotExist or ESRCH, as the kernel does.
//
// Formats are those of Linux 5.10 to 6.18, by the kernel's Documentation/filesystems/proc.rst and its fs/proc; what a newer
// kernel adds, and when, is said at the field. The package knows no images and touches no kernel interface but the files
// it is given.
package proc
