//go:build amd64

package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/plan"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/state/regfile"
	"stasis.example/internal/testkit"
)

// openedBelow opens files with a directory as the root of the restore.
func openedBelow(t *testing.T, dir string, files *apply.Files, opens ...plan.Open) error {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	files.Root = root
	t.Cleanup(files.Close)
	p := &plan.Plan{Tree: &snapshot.Tree{}, Opens: opens}
	for i := range opens {
		opens[i].File.ID = snapshot.FileID(i + 1)
		p.Tree.Files = append(p.Tree.Files, opens[i].File)
	}
	return openFiles(p, files, nil, &regfile.Ghosts{})
}

// named is a file with a name as it is now below a directory.
func named(t *testing.T, dir, name string, flags uint32) (plan.Open, *snapshot.Regular) {
	t.Helper()
	o := &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: name}}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
		t.Fatal(err)
	}
	o.Mode = &st.Mode
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		o.Size = new(uint64(st.Size))
	}
	return plan.Open{File: &snapshot.File{Flags: flags, Object: o}, How: plan.OpenPath, Itself: true}, o
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func flagsOf(t *testing.T, f *apply.File) int {
	t.Helper()
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

func TestOpenByName(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "hello")
	const large = 0o100000
	for _, flags := range []uint32{
		unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_APPEND, unix.O_RDONLY | unix.O_NONBLOCK, unix.O_RDWR | unix.O_SYNC,
		unix.O_RDONLY | unix.O_NOFOLLOW, unix.O_PATH, unix.O_RDONLY | unix.O_NOATIME,
	} {
		t.Run(fmt.Sprintf("%#o", flags), func(t *testing.T) {
			open, o := named(t, dir, "/a", flags)
			o.Pos = 3
			open.Map = []uint32{unix.O_RDONLY}
			var files apply.Files
			if err := openedBelow(t, dir, &files, open); err != nil {
				t.Fatal(err)
			}
			f := files.Ours(1)
			want := int(flags)
			if flags&unix.O_PATH == 0 {
				want |= large
			}
			if got := flagsOf(t, f); got != want {
				t.Errorf("flags %#o, want %#o", got, want)
			}
			if flags&unix.O_PATH != 0 {
				return
			}
			if at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_CUR); err != nil || at != 3 {
				t.Errorf("offset %d, %v", at, err)
			}
			if files.Place(&snapshot.Tree{}); len(files.All()) != 2 {
				t.Errorf("%d files are open", len(files.All()))
			}
			if n, err := files.Mapping(1, unix.O_RDONLY); err != nil || n != 4 {
				t.Errorf("the mapping has number %d, %v", n, err)
			}
		})
	}
}

// What is not what it was is refused, all of it at once, and nothing is left open: TestMain sees to that.
func TestOpenRefuses(t *testing.T) {
	testkit.Need(t, testkit.Root)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write(t, in("file"), "hello")
	if err := errors.Join(os.Mkdir(in("dir"), 0o755), unix.Mkfifo(in("fifo"), 0o644), os.Symlink("/etc/hostname", in("link")),
		os.Symlink("../../../../../../../../etc/passwd", in("up")), os.Symlink("loop", in("loop")),
		unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Mknod(in("mem"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1)))); err != nil {
		t.Fatal(err)
	}
	regular := uint32(unix.S_IFREG | 0o644)
	for _, tc := range []struct {
		name  string
		as    string
		flags uint32
		edit  func(*snapshot.Regular)
		files apply.Files
		want  string // "" for opened
		is    error
	}{
		{name: "as it was", as: "/file"},
		{name: "gone", as: "/missing", want: "/missing is gone", is: fs.ErrNotExist},
		{name: "bigger", as: "/file", edit: func(o *snapshot.Regular) { o.Size = new(uint64(4)) }, files: apply.Files{CheckSize: true}, want: "its size was 4, and is 5"},
		{name: "bigger, and nobody asks", as: "/file", edit: func(o *snapshot.Regular) { o.Size = new(uint64(4)) }},
		{name: "another mode", as: "/file", edit: func(o *snapshot.Regular) { o.Mode = new(uint32(unix.S_IFREG | 0o600)) }, want: "its mode was 0600, and is 0644"},
		{name: "another mode, and nobody asks", as: "/file", edit: func(o *snapshot.Regular) { o.Mode = new(uint32(unix.S_IFREG | 0o600)) }, files: apply.Files{SkipMode: true}},
		{name: "setuid, which is no permission", as: "/file", edit: func(o *snapshot.Regular) { o.Mode = new(uint32(unix.S_IFREG | 0o4644)) }, files: apply.Files{SkipMode: true}, want: "its mode was 04644"},
		{name: "a directory by now", as: "/dir", edit: func(o *snapshot.Regular) { o.Mode = &regular }, files: apply.Files{SkipMode: true}, want: "it was a regular file, and is a directory"},
		{name: "a fifo by now", as: "/fifo", edit: func(o *snapshot.Regular) { o.Mode = &regular }, want: "it was a regular file, and is a fifo"},
		{name: "a device", as: "/null", flags: unix.O_RDWR},
		{name: "a device with a state", as: "/mem", want: "it is the device 1:1"},
		{name: "only the name of a device", as: "/mem", flags: unix.O_PATH},
		{name: "a directory", as: "/dir", flags: unix.O_DIRECTORY},
		{name: "an absolute link stays below the root", as: "/link", edit: unknown, want: "/link is gone"},
		{name: "a link upwards stays below the root", as: "/up", edit: unknown, want: "/up is gone"},
		{name: "a link to itself", as: "/loop", edit: unknown, want: "links that a restore does not follow", is: unix.ELOOP},
		{name: "a link itself", as: "/link", flags: unix.O_PATH | unix.O_NOFOLLOW},
		{name: "dots", as: "/dir/../../../../../../../etc/passwd", edit: unknown, want: "is gone"},
		{name: "another build", as: "/file", edit: func(o *snapshot.Regular) { o.BuildID = []byte{1, 2} }, files: apply.Files{CheckBuildID: true}, want: "another build"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: tc.as}}
			var st unix.Stat_t
			if unix.Lstat(in(tc.as), &st) == nil {
				o.Mode = &st.Mode
			}
			if tc.edit != nil {
				tc.edit(o)
			}
			// One more that can be opened: it must not be left open.
			other, _ := named(t, dir, "/file", unix.O_RDONLY)
			err := openedBelow(t, dir, &tc.files, other, plan.Open{File: &snapshot.File{Flags: tc.flags, Object: o}, How: plan.OpenPath, Itself: true})
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want %q", err, tc.want)
			case tc.is != nil && !errors.Is(err, tc.is):
				t.Errorf("%v is not %v", err, tc.is)
			case err != nil && len(tc.files.All()) > 0:
				t.Errorf("%d files are left open", len(tc.files.All()))
			}
		})
	}
}

func unknown(o *snapshot.Regular) { o.Mode, o.Size = nil, nil }

func TestOpenTellsOfAll(t *testing.T) {
	dir := t.TempDir()
	var opens []plan.Open
	for i := range 3 {
		o := &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: fmt.Sprintf("/missing%d", i)}}
		opens = append(opens, plan.Open{File: &snapshot.File{Object: o}, How: plan.OpenPath, Itself: true})
	}
	err := openedBelow(t, dir, &apply.Files{}, opens...)
	for i := range 3 {
		if name := fmt.Sprintf("/missing%d", i); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("nothing is said of %s: %v", name, err)
		}
	}
}

// A pipe end, by its flags.
func end(p *plan.Pipe, flags uint32) plan.Open {
	return plan.Open{File: &snapshot.File{Flags: flags, Object: &snapshot.PipeEnd{Pipe: p.ID}}, How: plan.OpenPipe, Itself: true, Pipe: p}
}

func TestOpenPipe(t *testing.T) {
	const large = 0o100000
	data := strings.Repeat("0123456789abcdef", 8192) // 128 KiB
	p := &plan.Pipe{ID: 7, Content: &snapshot.Pipe{ID: 7, Capacity: 256 << 10, Data: []byte(data)}}
	var files apply.Files
	if err := openedBelow(t, "/", &files,
		end(p, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_DIRECT), end(p, unix.O_RDONLY), end(p, unix.O_RDONLY|unix.O_NONBLOCK|large), end(p, unix.O_RDWR|large)); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{unix.O_WRONLY | unix.O_NONBLOCK | unix.O_DIRECT, unix.O_RDONLY, unix.O_RDONLY | unix.O_NONBLOCK | large, unix.O_RDWR | large} {
		f := files.Ours(snapshot.FileID(i + 1))
		if got := flagsOf(t, f); got != want {
			t.Errorf("end %d has flags %#o, want %#o", i, got, want)
		}
		if size, err := unix.FcntlInt(f.Fd(), unix.F_GETPIPE_SZ, 0); err != nil || size != 256<<10 {
			t.Errorf("end %d has a capacity of %d, %v", i, size, err)
		}
	}
	got := make([]byte, len(data)+1)
	n := 0
	for n < len(data) {
		m, err := unix.Read(int(files.Ours(3).Fd()), got[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	if string(got[:n]) != data {
		t.Error("the pipe has other data in it")
	}
}

// An end whose other side nobody has finds nobody there.
func TestOpenHalfPipe(t *testing.T) {
	reader, writer := &plan.Pipe{ID: 1, Content: &snapshot.Pipe{ID: 1, Data: []byte("rest")}}, &plan.Pipe{ID: 2, Content: &snapshot.Pipe{ID: 2, Data: []byte("lost")}}
	var files apply.Files
	if err := openedBelow(t, "/", &files, end(reader, unix.O_RDONLY), end(writer, unix.O_WRONLY|unix.O_NONBLOCK)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	for _, want := range []string{"rest", ""} { // and then the end
		if n, err := unix.Read(int(files.Ours(1).Fd()), buf); err != nil || string(buf[:n]) != want {
			t.Errorf("read %q, %v, want %q", buf[:max(n, 0)], err, want)
		}
	}
	if _, err := unix.Write(int(files.Ours(2).Fd()), buf); !errors.Is(err, unix.EPIPE) {
		t.Errorf("write: %v", err)
	}
}

func TestOpenFIFO(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	node, _ := named(t, dir, "/fifo", unix.O_RDONLY)
	node.Itself = false
	p := &plan.Pipe{ID: 3, FIFO: true, Content: &snapshot.Pipe{ID: 3, FIFO: true, Data: []byte("waits")}}
	fifo := func(flags uint32) plan.Open {
		return plan.Open{File: &snapshot.File{Flags: flags, Object: &snapshot.FIFOEnd{Pipe: 3, Node: 1}}, How: plan.OpenFIFO, Itself: true, Pipe: p}
	}
	var files apply.Files
	if err := openedBelow(t, dir, &files, node, fifo(unix.O_WRONLY), fifo(unix.O_RDONLY|unix.O_NONBLOCK)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := unix.Read(int(files.Ours(3).Fd()), buf); err != nil || string(buf[:n]) != "waits" {
		t.Errorf("read %q, %v", buf[:max(n, 0)], err)
	}
	if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", files.Ours(2).Fd())); err != nil || name != filepath.Join(dir, "fifo") {
		t.Errorf("the fifo is %s, %v", name, err)
	}
	// Somebody else's data must not be mixed with ours.
	if _, err := unix.Write(int(files.Ours(2).Fd()), buf[:3]); err != nil {
		t.Fatal(err)
	}
	var again apply.Files
	if err := openedBelow(t, dir, &again, node, fifo(unix.O_RDONLY|unix.O_NONBLOCK)); err == nil || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("a fifo in use: %v", err)
	}
}

func TestOpenNameless(t *testing.T) {
	counter := func(n uint64, semaphore bool) plan.Open {
		return plan.Open{How: plan.Create, Itself: true, File: &snapshot.File{Flags: unix.O_RDWR | unix.O_NONBLOCK, Object: &snapshot.EventFD{Counter: n, Semaphore: semaphore}}}
	}
	const most = 1<<64 - 2
	var files apply.Files
	if err := openedBelow(t, "/", &files, counter(0, false), counter(5, true), counter(most, false),
		plan.Open{How: plan.Create, Itself: true, File: &snapshot.File{Flags: unix.O_RDWR, Object: &snapshot.SignalFD{Mask: 0x4000}}},
		plan.Open{How: plan.Create, Itself: true, File: &snapshot.File{Flags: unix.O_RDWR, Object: &snapshot.Epoll{}}}); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[snapshot.FileID]uint64{2: 1, 3: most} {
		buf := make([]byte, 8)
		if _, err := unix.Read(int(files.Ours(id).Fd()), buf); err != nil || binary.LittleEndian.Uint64(buf) != want {
			t.Errorf("eventfd %d: %x, %v, want %d", id, buf, err, want)
		}
	}
	if _, err := unix.Read(int(files.Ours(1).Fd()), make([]byte, 8)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("an eventfd at 0: %v", err)
	}
	if info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", files.Ours(4).Fd())); err != nil || !strings.Contains(string(info), "sigmask:\t0000000000004000") {
		t.Errorf("signalfd: %s, %v", info, err)
	}
}

func TestOpenInherited(t *testing.T) {
	given, err := os.Open(write(t, filepath.Join(t.TempDir(), "given"), "hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer given.Close()
	inherited := plan.Open{
		File: &snapshot.File{ID: 1, Flags: unix.O_RDWR, Object: &snapshot.Regular{Path: snapshot.Path{Name: "file[1:2]"}, External: true}},
		How:  plan.OpenInherit, Key: "file[1:2]", Itself: true, Map: []uint32{unix.O_RDONLY},
	}
	p := &plan.Plan{Tree: &snapshot.Tree{Files: []*snapshot.File{inherited.File}}, Opens: []plan.Open{inherited}}
	var files apply.Files
	if err := openFiles(p, &files, map[string]*os.File{"another": given}, &regfile.Ghosts{}); err == nil || !strings.Contains(err.Error(), `"file[1:2]"`) {
		t.Errorf("a file that is not handed in: %v", err)
	}
	if err := openFiles(p, &files, map[string]*os.File{"file[1:2]": given}, &regfile.Ghosts{}); err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if len(files.All()) != 2 {
		t.Errorf("%d files are open, want one and one to be mapped", len(files.All()))
	}
	// It is the very file, with whatever offset and flags it has.
	if _, err := given.Seek(2, 0); err != nil {
		t.Fatal(err)
	}
	if at, err := unix.Seek(int(files.Ours(1).Fd()), 0, unix.SEEK_CUR); err != nil || at != 2 {
		t.Errorf("its offset is %d, %v", at, err)
	}
}

// What is restored has the descriptors that it had, and none of whoever restores it: not one that this program was started with and
// knows nothing of.
func TestRestoreHandsOnNoDescriptors(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	victim := testkit.StartVictim(t, "counter")
	before := descriptors(t, victim.Pid)
	images := t.TempDir()
	if err := dumpTo(t, New(), images, victim.Pid, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := victim.Wait(); err != nil {
		t.Fatal(err)
	}
	testkit.AwaitFreeIDs(t, images)
	var ends [2]int
	if err := unix.Pipe2(ends[:], 0); err != nil {
		t.Fatal(err)
	}
	const high = 300
	err := unix.Dup2(ends[1], high) // without FD_CLOEXEC
	if err == nil {
		err = restoreFrom(t.Context(), New(), images)
	}
	for _, fd := range []int{ends[0], ends[1], high} {
		_ = unix.Close(fd)
	}
	if err != nil {
		t.Fatal(err)
	}
	victim.Restored()
	if after := descriptors(t, victim.Pid); !slices.Equal(before, after) {
		t.Errorf("it had the descriptors %q, and has %q", before, after)
	}
	victim.MustVerify()
}

func descriptors(t *testing.T, pid int) (names []string) {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		names = append(names, fd.Name())
	}
	return names
}
