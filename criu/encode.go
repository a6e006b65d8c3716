package criu

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
)

// encoder turns an options struct into a request's options. It collects every complaint instead of stopping at the
// first, and the descriptors that the peer is to get.
type encoder struct {
	opts     *rpc.Opts
	problems []error

	dirs  []*os.File // opened here, closed by close
	files []*os.File // to pass to the peer
	// patches set the descriptor numbers that are known once the conversation is open.
	patches []func(number func(i int) int)

	logDir  *os.File // where the log goes
	imgDir  *os.File
	imgPath string // name of the images directory for messages
}

// newEncoder starts with no directory; images_dir_fd is a required field whose default is -1.
func newEncoder() *encoder { return &encoder{opts: &rpc.Opts{ImagesDirFD: -1}} }

func (e *encoder) close() {
	for _, d := range e.dirs {
		d.Close()
	}
	e.dirs = nil
}

func (e *encoder) problem(format string, args ...any) {
	e.problems = append(e.problems, fmt.Errorf(format, args...))
}

// err is nil or everything that is wrong with the options.
func (e *encoder) err() error { return errors.Join(e.problems...) }

func (e *encoder) bool(dst **bool, v bool) {
	if v {
		*dst = new(true)
	}
}

func (e *encoder) text(field, v string) {
	if strings.IndexByte(v, 0) >= 0 {
		e.problem("%s contains a NUL byte: %q", field, v)
	}
}

func (e *encoder) string(dst **string, field, v string) {
	if v == "" {
		return
	}
	e.text(field, v)
	*dst = &v
}

func (e *encoder) strings(dst *[]string, field string, v []string) {
	for i, s := range v {
		if s == "" {
			e.problem("%s[%d] is empty", field, i)
		}
		e.text(field, s)
	}
	*dst = append(*dst, v...) // a copy: the options stay the caller's
}

func (e *encoder) int(dst **int32, field string, v int) {
	switch {
	case v == 0:
	case v < 0 || v > math.MaxInt32:
		e.problem("%s is out of range: %d", field, v)
	default:
		*dst = new(int32(v))
	}
}

func (e *encoder) uint(dst **uint32, v uint32) {
	if v != 0 {
		*dst = &v
	}
}

func (e *encoder) seconds(dst **uint32, field string, v time.Duration) {
	switch {
	case v == 0:
	case v < 0 || v.Seconds() > math.MaxInt32:
		e.problem("%s is out of range: %v", field, v)
	default: // the wire has whole seconds; less would mean none at all
		*dst = new(uint32((v + time.Second - 1) / time.Second))
	}
}

func (e *encoder) size(dst **uint32, field string, v int64) {
	switch {
	case v == 0:
	case v < 0 || v > math.MaxUint32:
		e.problem("%s is out of range: %d bytes", field, v)
	default:
		*dst = new(uint32(v))
	}
}

// wordValue pairs a word with its value on the wire.
type wordValue[W ~string, V ~int32] struct {
	word  W
	value V
}

func word[W ~string, V ~int32](e *encoder, dst **V, field string, v W, values []wordValue[W, V]) {
	if v == "" {
		return
	}
	known := make([]string, 0, len(values))
	for _, w := range values {
		if w.word == v {
			*dst = new(w.value)
			return
		}
		known = append(known, string(w.word))
	}
	e.problem("%s is %q; it may be one of %s", field, string(v), strings.Join(known, ", "))
}

func (e *encoder) cpuCap(dst **uint32, v CPUCap) {
	switch {
	case v == 0:
	case v == CPUCapNone:
		*dst = new(uint32(0))
	case v&CPUCapNone != 0 && v != CPUCapAll:
		e.problem("CPUCap: none excludes every other capability")
	default:
		*dst = new(uint32(v))
	}
}

func (e *encoder) logLevel(dst **int32, v LogLevel) {
	switch {
	case v == 0:
	case v == LogNone:
		*dst = new(int32(0))
	case v < 0 || v > 1000:
		e.problem("LogLevel is out of range: %d", v)
	default:
		*dst = new(int32(v))
	}
}

func (e *encoder) namespaces(dst **uint32, field string, v Namespaces) {
	if v == 0 {
		return
	}
	if v&^NamespaceNet != 0 {
		e.problem("%s: only the network namespace can be left empty", field)
	}
	*dst = new(uint32(v))
}

// imagesDir handles the three ways to name the directory of the images; they exclude one another.
func (e *encoder) imagesDir(path string, file *os.File, peerPath string) {
	given := 0
	for _, set := range []bool{path != "", file != nil, peerPath != ""} {
		if set {
			given++
		}
	}
	if given > 1 {
		e.problem("more than one of ImagesDir, ImagesDirFile and PeerImagesDir is set")
		return
	}
	switch {
	case path != "" || file != nil:
		e.imgPath = path
		e.imgDir = e.directory("ImagesDir", path, file)
		e.logDir = e.imgDir
		if e.imgDir != nil {
			e.imgPath = e.imgDir.Name()
			e.opts.ImagesDirFD = int32(e.imgDir.Fd())
		}
	case peerPath != "":
		e.text("PeerImagesDir", peerPath)
		e.imgPath = peerPath
		e.opts.ImagesDir = &peerPath
	}
}

func (e *encoder) workDir(path string, file *os.File) {
	if path != "" && file != nil {
		e.problem("both WorkDir and WorkDirFile are set")
		return
	}
	if path == "" && file == nil {
		return
	}
	if d := e.directory("WorkDir", path, file); d != nil {
		e.logDir = d
		e.opts.WorkDirFD = new(int32(d.Fd()))
	}
}

// directory opens path, or checks that file is an open directory. The peer reaches either through
// /proc/<this process>/fd, from whatever mount namespace it is in.
func (e *encoder) directory(field, path string, file *os.File) *os.File {
	if file == nil {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			e.problems = append(e.problems, fmt.Errorf("%s: %w", field, &os.PathError{Op: "open", Path: path, Err: err}))
			return nil
		}
		d := os.NewFile(uintptr(fd), path)
		e.dirs = append(e.dirs, d)
		return d
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		e.problems = append(e.problems, fmt.Errorf("%sFile: %w", field, &os.PathError{Op: "stat", Path: file.Name(), Err: err}))
		return nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		e.problem("%sFile: %s is not a directory", field, file.Name())
		return nil
	}
	return file
}

// peerFile is a descriptor of ours that the peer opens or takes by its number here.
func (e *encoder) peerFile(dst **int32, f *os.File) {
	if f != nil {
		*dst = new(int32(f.Fd()))
	}
}

// donate gives the peer a descriptor, whose number there set is called with.
func (e *encoder) donate(f *os.File, set func(number int32)) {
	i := len(e.files)
	e.files = append(e.files, f)
	e.patches = append(e.patches, func(number func(int) int) { set(int32(number(i))) })
}

func (e *encoder) patch(number func(i int) int) {
	for _, p := range e.patches {
		p(number)
	}
}

func (e *encoder) pageServer(ps *PageServerAddr) {
	if ps == nil {
		return
	}
	m := new(rpc.PageServerInfo)
	e.string(&m.Address, "PageServer.Address", ps.Address)
	if ps.Port < 0 || ps.Port > math.MaxUint16 {
		e.problem("PageServer.Port is out of range: %d", ps.Port)
	} else {
		m.Port = new(int32(ps.Port))
	}
	if ps.File != nil {
		m.FD = new(int32(-1))
		e.donate(ps.File, func(n int32) { *m.FD = n })
	}
	e.opts.PS = m
}

func (e *encoder) veths(list []Veth) {
	for i, v := range list {
		if v.Inside == "" || v.Outside == "" {
			e.problem("Veths[%d] lacks a name", i)
		}
		e.text("Veths", v.Inside+v.Outside)
		e.opts.Veths = append(e.opts.Veths, &rpc.VethPair{IfIn: v.Inside, IfOut: v.Outside})
	}
}

func (e *encoder) extMounts(list []ExtMount) {
	for i, m := range list {
		if m.Key == "" || m.Value == "" {
			e.problem("ExtMounts[%d] lacks a key or a value", i)
		}
		e.text("ExtMounts", m.Key+m.Value)
		e.opts.ExtMnt = append(e.opts.ExtMnt, &rpc.ExtMountMap{Key: m.Key, Val: m.Value})
	}
}

func (e *encoder) cgroupRoots(list []CgroupRoot) {
	for i, r := range list {
		if r.Path == "" {
			e.problem("CgroupRoots[%d] lacks a path", i)
		}
		e.text("CgroupRoots", r.Controller+r.Path)
		m := &rpc.CgroupRoot{Path: r.Path}
		if r.Controller != "" {
			m.Ctrl = &r.Controller
		}
		e.opts.CgRoot = append(e.opts.CgRoot, m)
	}
}

func (e *encoder) inheritFiles(list []InheritFile) {
	for i, f := range list {
		if f.Key == "" || f.File == nil {
			e.problem("InheritFiles[%d] lacks a key or a file", i)
			continue
		}
		e.text("InheritFiles", f.Key)
		m := &rpc.InheritFD{Key: f.Key, FD: -1}
		e.opts.InheritFD = append(e.opts.InheritFD, m)
		e.donate(f.File, func(n int32) { m.FD = n })
	}
}

// extUnixInodes also allows external sockets as such: CRIU reads the list only then.
func (e *encoder) extUnixInodes(list []uint32) {
	for _, ino := range list {
		e.opts.UnixSkIno = append(e.opts.UnixSkIno, &rpc.UnixSk{Inode: ino})
	}
	if len(list) > 0 {
		e.opts.ExtUnixSk = new(true)
	}
}

func (e *encoder) joinNamespaces(list []JoinNamespace) {
	for i, j := range list {
		if j.Kind == "" || j.Target == "" {
			e.problem("JoinNamespaces[%d] lacks a kind or a target", i)
		}
		e.text("JoinNamespaces", j.Kind+j.Target+j.Extra)
		m := &rpc.JoinNamespace{NS: j.Kind, NSFile: j.Target}
		if j.Extra != "" {
			m.ExtraOpt = &j.Extra
		}
		e.opts.JoinNS = append(e.opts.JoinNS, m)
	}
}

func (e *encoder) raw(raw *rpc.Opts) {
	mergeRaw(e.opts, raw, func(field string) {
		e.problem("Raw sets %s, which another option sets too", field)
	})
}

func itoa(n int) string { return strconv.Itoa(n) }
