package proc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"sync"
)

// FS is a /proc.
type FS struct {
	root *root
}

// New returns the /proc that root is: os.DirFS("/proc"), or captured files.
func New(files fs.FS) FS { return FS{&root{FS: files}} }

// root is where a /proc is, and buffers: a dump reads tens of thousands of files.
type root struct {
	fs.FS
	readers sync.Pool // of *bufio.Reader, of bufferSize bytes
}

// Dir is the directory of a process or a thread.
type Dir struct {
	root *root
	name string
}

// Process returns the directory of a process.
func (f FS) Process(pid int) Dir { return Dir{f.root, strconv.Itoa(pid)} }

// Thread returns the directory of a thread, /proc/PID/task/TID.
func (f FS) Thread(pid, tid int) Dir {
	return Dir{f.root, strconv.Itoa(pid) + "/task/" + strconv.Itoa(tid)}
}

// Self returns the directory of the calling process.
func (f FS) Self() Dir { return Dir{f.root, "self"} }

func inFile(name string, err error) error {
	var syntax *SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("/proc/%s: %w", name, err)
	}
	return err // a PathError has the name
}

// with opens a file for a parser. What the parser returns must not have parts of the reader's buffer.
func with[T any](r *root, name string, parse func(io.Reader) (T, error)) (v T, err error) {
	f, err := r.Open(name)
	if err != nil {
		return v, err
	}
	defer f.Close()
	b := r.reader(f)
	defer r.release(b)
	if v, err = parse(b); err != nil {
		return v, inFile(name, err)
	}
	return v, nil
}

// all reads a small file whole and lets parse see it, which must not keep it.
func all[T any](r *root, name string, parse func([]byte) (T, error)) (T, error) {
	return with(r, name, func(f io.Reader) (v T, err error) {
		text, err := whole(f)
		if err != nil {
			return v, err
		}
		return parse(text)
	})
}

// whole returns all that there is to be read: in the reader's own buffer, if it has one and there is room.
func whole(r io.Reader) ([]byte, error) {
	b := bufio.NewReaderSize(r, bufferSize)
	text, err := b.Peek(b.Size())
	if errors.Is(err, io.EOF) {
		return text, nil
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(b)
}

func (r *root) reader(f io.Reader) *bufio.Reader {
	b, ok := r.readers.Get().(*bufio.Reader)
	if !ok {
		return bufio.NewReaderSize(f, bufferSize)
	}
	b.Reset(f)
	return b
}

func (r *root) release(b *bufio.Reader) {
	b.Reset(nil)
	r.readers.Put(b)
}

func (d Dir) file(name string) string { return d.name + "/" + name }

// String returns the directory's path.
func (d Dir) String() string { return "/proc/" + d.name }

// Stat reads stat.
func (d Dir) Stat() (Stat, error) { return all(d.root, d.file("stat"), ParseStat) }

// Status reads status.
func (d Dir) Status() (Status, error) { return with(d.root, d.file("status"), ParseStatus) }

// Maps reads maps.
func (d Dir) Maps() ([]Mapping, error) { return with(d.root, d.file("maps"), ParseMaps) }

// Smaps reads smaps and calls yield for each mapping; the value is used again for the next one. An error of yield ends
// the reading and is returned. The file of a process with many mappings has many megabytes and is never held whole.
func (d Dir) Smaps(yield func(*Smap) error) error { return d.smaps(false, yield) }

// Mappings is Smaps without what mappings occupy: Size, Rss and the like are 0. It takes half the time.
func (d Dir) Mappings(yield func(*Smap) error) error { return d.smaps(true, yield) }

func (d Dir) smaps(brief bool, yield func(*Smap) error) error {
	name := d.file("smaps")
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	b := d.root.reader(f)
	defer d.root.release(b)
	r := NewSmapsReader(b)
	r.brief = brief
	var m Smap
	for {
		err := r.Next(&m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return inFile(name, err)
		}
		if err := yield(&m); err != nil {
			return err
		}
	}
}

// FDInfo reads fdinfo/FD.
func (d Dir) FDInfo(fd int) (FDInfo, error) {
	return with(d.root, d.file("fdinfo/"+strconv.Itoa(fd)), ParseFDInfo)
}

// FDs returns the open descriptors, ascending.
func (d Dir) FDs() ([]int, error) { return d.numbers("fd") }

// Threads returns the threads, ascending.
func (d Dir) Threads() ([]int, error) { return d.numbers("task") }

// Processes returns all processes of a /proc, ascending.
func (f FS) Processes() ([]int, error) {
	list, err := fs.ReadDir(f.root.FS, ".")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range list {
		var n int
		if number([]byte(e.Name()), &n) {
			pids = append(pids, n)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// numbers reads a directory in which every name is a number.
func (d Dir) numbers(dir string) ([]int, error) {
	name := d.file(dir)
	list, err := fs.ReadDir(d.root.FS, name)
	if err != nil {
		return nil, err
	}
	nums := make([]int, len(list))
	for i, e := range list {
		if !number([]byte(e.Name()), &nums[i]) {
			return nil, inFile(name, &SyntaxError{Text: e.Name(), What: "name is no number"})
		}
	}
	slices.Sort(nums)
	return nums, nil
}

// Link reads a symbolic link: "exe", "cwd", "root", "fd/7". The text of a descriptor that is no file is "pipe:[123]" and
// the like; that of a file whose name is gone ends with " (deleted)", and a file may really have such a name.
func (d Dir) Link(name string) (string, error) { return fs.ReadLink(d.root.FS, d.file(name)) }

// NS reads a link of ns/: kind is "pid", "mnt", "pid_for_children" and so on.
func (d Dir) NS(kind string) (Namespace, error) {
	name := d.file("ns/" + kind)
	text, err := fs.ReadLink(d.root.FS, name)
	if err != nil {
		return Namespace{}, err
	}
	ns, err := ParseNamespace(text)
	if err != nil {
		return ns, inFile(name, err)
	}
	return ns, nil
}

// MountInfo reads mountinfo.
func (d Dir) MountInfo() ([]Mount, error) {
	return with(d.root, d.file("mountinfo"), ParseMountInfo)
}

// Limits reads limits.
func (d Dir) Limits() (Limits, error) { return with(d.root, d.file("limits"), ParseLimits) }

// Timers reads timers: the POSIX timers of a process.
func (d Dir) Timers() ([]Timer, error) { return with(d.root, d.file("timers"), ParseTimers) }

// Cgroup reads cgroup.
func (d Dir) Cgroup() ([]Cgroup, error) { return with(d.root, d.file("cgroup"), ParseCgroup) }

// CgroupText reads cgroup, as it is.
func (d Dir) CgroupText() ([]byte, error) { return all(d.root, d.file("cgroup"), copied) }

// HasCgroupText reports whether cgroup is text: that of another process, as it is mostly the same.
func (d Dir) HasCgroupText(text []byte) (bool, error) {
	return all(d.root, d.file("cgroup"), func(b []byte) (bool, error) { return bytes.Equal(b, text), nil })
}

// UIDMap reads uid_map.
func (d Dir) UIDMap() ([]IDMap, error) { return with(d.root, d.file("uid_map"), ParseIDMap) }

// GIDMap reads gid_map.
func (d Dir) GIDMap() ([]IDMap, error) { return with(d.root, d.file("gid_map"), ParseIDMap) }

// TimeOffsets reads timens_offsets: those of the namespace that the children of a process get. Kernels before 5.6 have none.
func (d Dir) TimeOffsets() (TimeOffsets, error) {
	return with(d.root, d.file("timens_offsets"), ParseTimeOffsets)
}

// Children reads children of a thread's directory: the processes that this thread has forked. The kernel promises a whole
// list only while the thread and its children are stopped.
func (d Dir) Children() ([]int, error) { return all(d.root, d.file("children"), parseChildren) }

// Auxv reads auxv: the words of the auxiliary vector without the AT_NULL pair at its end. wordSize is 8, or 4 for a
// 32-bit process.
func (d Dir) Auxv(wordSize int) ([]uint64, error) {
	return all(d.root, d.file("auxv"), func(b []byte) ([]uint64, error) { return ParseAuxv(b, wordSize) })
}

// Cmdline reads cmdline, as it is: arguments with a zero byte after each, unless the process wrote there what it likes.
func (d Dir) Cmdline() ([]byte, error) { return all(d.root, d.file("cmdline"), copied) }

// Environ reads environ, as it is: variables with a zero byte after each, unless the process wrote there what it likes.
func (d Dir) Environ() ([]byte, error) { return all(d.root, d.file("environ"), copied) }

func copied(b []byte) ([]byte, error) { return append([]byte{}, b...), nil }

// Comm reads comm, the name of a thread: at most 15 bytes of any kind but zero.
func (d Dir) Comm() (string, error) {
	return all(d.root, d.file("comm"), func(b []byte) (string, error) {
		name, ok := bytes.CutSuffix(b, []byte("\n"))
		if !ok {
			return "", &SyntaxError{Text: string(b), What: "not ended by a line feed"}
		}
		return string(name), nil
	})
}

// LoginUID reads loginuid. 4294967295 stands for none. The error wraps fs.ErrNotExist on a kernel without auditing.
func (d Dir) LoginUID() (uint32, error) { return oneNumber[uint32](d.root, d.file("loginuid")) }

// OOMScoreAdj reads oom_score_adj, -1000 to 1000.
func (d Dir) OOMScoreAdj() (int, error) { return oneNumber[int](d.root, d.file("oom_score_adj")) }

// TimerSlack reads timerslack_ns, which is there in the directories of processes only; that of a thread is reached by its number
// as if it were a process. The error wraps fs.ErrNotExist on a kernel without, and is EPERM for who may not know.
func (d Dir) TimerSlack() (uint64, error) { return oneNumber[uint64](d.root, d.file("timerslack_ns")) }

// CoreDumpFilter reads coredump_filter. The error wraps fs.ErrNotExist on a kernel without core dumps.
func (d Dir) CoreDumpFilter() (uint32, error) {
	return oneHex(d.root, d.file("coredump_filter"))
}

// Personality reads personality. The kernel lets only tracers of the process read it.
func (d Dir) Personality() (uint32, error) { return oneHex(d.root, d.file("personality")) }

func oneHex(r *root, name string) (uint32, error) {
	return all(r, name, func(b []byte) (v uint32, err error) {
		if !hex(bytes.TrimSpace(b), &v) {
			err = &SyntaxError{Text: string(b), What: "not one hexadecimal number"}
		}
		return v, err
	})
}

// LastPID reads sys/kernel/ns_last_pid: the last pid that was given out in the reader's pid namespace.
func (f FS) LastPID() (int, error) { return oneNumber[int](f.root, "sys/kernel/ns_last_pid") }

// Locks reads locks: all file locks of the machine.
func (f FS) Locks() ([]Lock, error) { return with(f.root, "locks", ParseLocks) }

func oneNumber[T integer](r *root, name string) (T, error) {
	return all(r, name, func(b []byte) (v T, err error) {
		// loginuid has no line feed, the others have.
		if !number(bytes.TrimSuffix(b, []byte("\n")), &v) {
			err = &SyntaxError{Text: string(b), What: "not one number"}
		}
		return v, err
	})
}
