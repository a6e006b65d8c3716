package cli

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
)

// job is an operation that is being prepared and done: the directories, the log and the peer. What it opened goes with
// close.
type job struct {
	run          *run
	images, work *os.File
	log          *logSink
	peer         *peer
	files        []*os.File
	raw          rpc.Opts
}

// openJob opens what an operation needs, in criu's order: first the directories, then the log, so that the log is there
// whatever goes wrong later.
func (r *run) openJob(kin kinship) (*job, error) {
	j := &job{run: r}
	if err := j.open(kin); err != nil {
		j.close()
		return nil, err
	}
	return j, nil
}

func (j *job) open(kin kinship) (err error) {
	s := j.run.settings
	if j.images, err = openDirectory(s.imagesDir, "images"); err != nil {
		return err
	}
	j.work = j.images
	if s.workDir != "" {
		if j.work, err = openDirectory(s.workDir, "work"); err != nil {
			return err
		}
	}
	if j.log, err = j.run.openLog(j.work, kin); err != nil {
		return err
	}
	if j.peer, err = j.run.openPeer(j.log.stream, kin); err != nil {
		return err
	}
	j.raw = s.opts
	j.raw.LogLevel = nil
	if s.levelSet {
		j.raw.LogLevel = new(int32(s.level))
	}
	if j.log.name != "" {
		j.raw.LogFile = &j.log.name
	} else if j.log.toStderr() {
		j.raw.LogToStderr = new(true)
	}
	return nil
}

func (j *job) close() {
	if j.peer != nil {
		j.peer.close()
	}
	if j.log != nil {
		j.log.close()
	}
	if j.work != nil && j.work != j.images {
		j.work.Close()
	}
	if j.images != nil {
		j.images.Close()
	}
	for _, f := range j.files {
		f.Close()
	}
}

// fail completes an operation's error and puts one of our own into the log.
func (j *job) fail(err error) error {
	if err == nil {
		return nil
	}
	return j.log.explain(err)
}

// refuse is an error of our own, which goes into the log as criu's would.
func (j *job) refuse(err error) error {
	j.log.write(err.Error())
	return &usageError{err: err, brief: true}
}

// openDirectory opens the directory of the images or the work directory; "" is the current one.
func openDirectory(path, what string) (*os.File, error) {
	if path == "" {
		path = "."
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("the %s directory cannot be opened: %w", what, &os.PathError{Op: "open", Path: path, Err: err})
	}
	return os.NewFile(uintptr(fd), path), nil
}

// given opens a file that the caller handed to the program by its number. The number stays the caller's.
func (j *job) given(number int, flag string) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(number), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, &usageError{err: fmt.Errorf("%s: there is no open file %d: %w", flag, number, err), brief: true}
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("fd %d", number))
	j.files = append(j.files, f)
	return f, nil
}

func (j *job) inherited() ([]criu.InheritFile, error) {
	var list []criu.InheritFile
	for _, in := range j.run.settings.inherit {
		f, err := j.given(in.number, "--inherit-fd")
		if err != nil {
			return nil, err
		}
		list = append(list, criu.InheritFile{Key: in.key, File: f})
	}
	return list, nil
}

// statusFile is the file of --status-fd, nil for none. Whoever reads it waits for its end, too, so nobody else may keep
// it open: not this program under its first number, nor the peer.
func (j *job) statusFile() (*os.File, error) {
	n := j.run.settings.statusFD
	if n == nil {
		return nil, nil
	}
	f, err := j.given(*n, "--status-fd")
	if err == nil && *n > 2 {
		unix.Close(*n)
	}
	return f, err
}

// pageServer is where memory goes, nil for the images.
func (j *job) pageServer(wanted bool) (*criu.PageServerAddr, error) {
	s := j.run.settings
	if !wanted {
		return nil, nil
	}
	ps := &criu.PageServerAddr{Address: s.address, Port: s.port}
	if s.psSocket != nil {
		f, err := j.given(*s.psSocket, "--ps-socket")
		if err != nil {
			return nil, err
		}
		ps.File = f
	}
	return ps, nil
}

func lazy(o *rpc.Opts) bool { return o.LazyPages != nil && *o.LazyPages }

// size is what the images come to so far.
func (j *job) size() (files int, bytes int64) {
	dup, err := unix.Openat(int(j.images.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0
	}
	dir := os.NewFile(uintptr(dup), j.images.Name())
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, 0
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(dup, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && isImage(name) {
			files++
			bytes += st.Size
		}
	}
	return files, bytes
}

// isImage leaves out logs and the like.
func isImage(name string) bool {
	const suffix = ".img"
	return len(name) > len(suffix) && name[len(name)-len(suffix):] == suffix || slices.Contains([]string{"stats-dump", "stats-restore"}, name)
}
