package proc

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"math"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"
)

// parsers are all parsers over text, as functions that forget the value.
var parsers = map[string]func(io.Reader) error{
	"maps":      func(r io.Reader) error { _, err := ParseMaps(r); return err },
	"smaps":     func(r io.Reader) error { _, err := smapsOf(r); return err },
	"status":    func(r io.Reader) error { _, err := ParseStatus(r); return err },
	"fdinfo":    func(r io.Reader) error { _, err := ParseFDInfo(r); return err },
	"mountinfo": func(r io.Reader) error { _, err := ParseMountInfo(r); return err },
	"limits":    func(r io.Reader) error { _, err := ParseLimits(r); return err },
	"timers":    func(r io.Reader) error { _, err := ParseTimers(r); return err },
	"cgroup":    func(r io.Reader) error { _, err := ParseCgroup(r); return err },
	"idmap":     func(r io.Reader) error { _, err := ParseIDMap(r); return err },
	"locks":     func(r io.Reader) error { _, err := ParseLocks(r); return err },
	"stat":      bytesParser(ParseStat),
	"children":  bytesParser(parseChildren),
	"timens":    func(r io.Reader) error { _, err := ParseTimeOffsets(r); return err },
	"auxv":      bytesParser(func(b []byte) ([]uint64, error) { return ParseAuxv(b, 8) }),
	"auxv32":    bytesParser(func(b []byte) ([]uint64, error) { return ParseAuxv(b, 4) }),
	"ns":        bytesParser(func(b []byte) (Namespace, error) { return ParseNamespace(string(b)) }),
}

func bytesParser[T any](parse func([]byte) (T, error)) func(io.Reader) error {
	return func(r io.Reader) error {
		b, err := io.ReadAll(r)
		if err == nil {
			_, err = parse(b)
		}
		return err
	}
}

func smapsOf(r io.Reader) (all []Smap, err error) {
	s := NewSmapsReader(r)
	for {
		var m Smap
		err := s.Next(&m)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
}

const goodMap = "00400000-00401000 r--p 00000000 fe:00 10012012                           /bin/x\n"
const statTail = " S 1 2 3 0 -1 4194304 225 0 0 0 0 0 0 0 20 0 2 0 299537 10563584 158 18446744073709551615 4198400 4767409 140726529447200 0 0 0 512 4102 16384 0 0 0 17 1 0 0 0 0 0 4941488 4965040 931098624 140726529454054 140726529454063 140726529454063 140726529454063 0\n"

// TestBad: what is not understood is an error with the text, in each parser.
func TestBad(t *testing.T) {
	for _, c := range []struct{ parser, in, text string }{
		{"maps", "00400000-00401000 r--p 00000000 fe:00 10012012", "line 1: line is cut off"},
		{"maps", goodMap + "x\n", `line 2: no address range: "x"`},
		{"maps", "00401000-00400000 r--p 00000000 fe:00 1\n", "no address range"},
		{"maps", "00400000-100000000000000000 r--p 00000000 fe:00 1\n", "no address range"},
		{"maps", "00400000-00401000 r--q 00000000 fe:00 1\n", "permission 'q'"},
		{"maps", "00400000-00401000 r- 00000000 fe:00 1\n", "no permissions"},
		{"maps", "00400000-00401000 r--p 0000000g fe:00 1\n", "no offset"},
		{"maps", "00400000-00401000 r--p 00000000 fe00 1\n", "no device"},
		{"maps", "00400000-00401000 r--p 00000000 fe:00 -1\n", "no inode"},
		{"maps", goodMap + goodMap, "before the end"},
		{"smaps", goodMap, "without VmFlags"},
		{"smaps", goodMap + "Size: 4 kB\nVmFlags: rd\n" + goodMap + "VmFlags: rd\n", "before the end"},
		{"smaps", goodMap + "Size: 4 MB\nVmFlags: rd\n", "no number of kB"},
		{"smaps", goodMap + "THPeligible: x\nVmFlags: rd\n", "no number"},
		{"smaps", goodMap + "Nonsense\nVmFlags: rd\n", "no colon"},
		{"smaps", goodMap + "VmFlags: rd", "cut off"},
		{"status", "Name:\tx\n", "without the line State"},
		{"status", "Umask:\t0089\n", "bad value"},
		{"status", "SigBlk:\t0\n", "bad value"},
		{"status", "Uid:\t0\t0\t0\n", "bad value"},
		{"status", "Name x\n", "no colon"},
		{"status", "VmPeak:\t1\n", "bad value"},
		{"stat", "1 (x) S 1\n", "fields"},
		{"stat", "1 (x)" + statTail[:len(statTail)-1], "cut off"},
		{"stat", "1 (x)" + strings.Replace(statTail, "225", "22x", 1), "field 10 is no number"},
		{"stat", "x (x)" + statTail, "no pid"},
		{"stat", "1 x" + statTail, "no pid"},
		{"fdinfo", "pos:\t0\n", "without pos and flags"},
		{"fdinfo", "pos:\t-1\nflags:\t02\n", "bad value"},
		{"fdinfo", "pos:\t0\nflags:\t08\n", "bad value"},
		{"fdinfo", "pos:\t0\nflags:\t02\ntfd: 5 events: 19\n", "bad value"},
		{"fdinfo", "pos:\t0\nflags:\t02\ninotify wd:1 ino:2\n", "bad value"},
		{"fdinfo", "pos:\t0\nflags:\t02\ninotify wd:1 ino:2 sdev:3 mask:4 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:00\n", "bad value"},
		{"fdinfo", "pos:\t0\nflags:\t02\nit_value: (1, 1000000000)\n", "bad value"},
		{"fdinfo", "pos:\t0\nflags:\t02\nlock:\t1: FLOCK\n", "bad value"},
		{"mountinfo", "1 2 3:4 / / rw - proc proc\n", "too few fields"},
		{"mountinfo", "1 2 3:4 / / rw shared:x - proc proc rw\n", "optional field"},
		{"mountinfo", "1 2 3:4 / / rw shared:1 proc proc rw x y\n", "no file system"},
		{"mountinfo", "1 2 34 / / rw - proc proc rw\n", "no ids"},
		{"limits", "", "empty"},
		{"limits", "Limit Soft\n", "without Max cpu time"},
		{"limits", "Limit Soft\nMax surprises 1 2 things\n", "not known"},
		{"limits", "Limit Soft\nMax open files 1 x files\n", "bad value"},
		{"timers", "signal: 34/00\n", "no ID before"},
		{"timers", "ID: 1\nID: 2\n", "not whole"},
		{"timers", "ID: 1\nsignal: 34/00\n", "not whole"},
		{"timers", "ID: 1\nsignal: 34/00\nnotify: signal/gid.3\n", "bad value"},
		{"cgroup", "1:cpu\n", "no hierarchy"},
		{"idmap", "0 0\n", "not three numbers"},
		{"idmap", "0 0 4294967296\n", "not three numbers"},
		{"locks", "1: POSIX ADVISORY WRITE 1 fe:00:1 0\n", "no lock"},
		{"locks", "1: POSIX ADVISORY WRITE 1 fe:00:1 0 EOF more\n", "no lock"},
		{"children", "1 2", "cut off"},
		{"timens", "monotonic 0\n", "seconds"},
		{"timens", "monotonic 0 -1\n", "seconds"},
		{"timens", "boottime 9223372036854775807 0\n", "seconds"},
		{"children", "1 x ", "not all are pids"},
		{"auxv", "123", "no pairs of words"},
		{"auxv", strings.Repeat("\x01", 16), "no AT_NULL"},
		{"ns", "pid:4026531836", "no namespace"},
	} {
		err := parsers[c.parser](strings.NewReader(c.in))
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s of %q: %v, want %q", c.parser, c.in, err, c.text)
		}
	}
}

// TestReadErrors: an error of the file is not an end of it, wherever it comes.
func TestReadErrors(t *testing.T) {
	broken := errors.New("broken")
	for name, parse := range parsers {
		if name == "ns" {
			continue // no file
		}
		for _, before := range []string{"", goodMap, "pos:\t0\n", "1 "} {
			err := parse(io.MultiReader(strings.NewReader(before), iotest.ErrReader(broken)))
			var syntax *SyntaxError
			if !errors.Is(err, broken) && !errors.As(err, &syntax) {
				t.Errorf("%s after %q: %v", name, before, err)
			}
			if before == "" && !errors.Is(err, broken) && name != "limits" {
				t.Errorf("%s: %v, want the error of the file", name, err)
			}
		}
	}
}

// TestLongLines: no size is too small for a line.
func TestLongLines(t *testing.T) {
	groups := strings.Repeat("4294967294 ", 65536)
	status := "Name:\tx\nState:\tS (sleeping)\nTgid:\t1\nPid:\t1\nPPid:\t0\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t" + groups +
		"\nThreads:\t1\nSigPnd:\t0000000000000000\nSigBlk:\t0000000000000000\nCapEff:\t0000000000000000\n"
	s, err := ParseStatus(strings.NewReader(status))
	if err != nil || len(s.Groups) != 65536 || s.Threads != 1 || s.SeccompCount != -1 || !s.THPEnabled || s.HasMM {
		t.Errorf("%d groups, %v", len(s.Groups), err)
	}
	l := newLines(strings.NewReader(strings.Repeat("x", maxLine+1<<17) + "\n"))
	if l.next() || l.failed() == nil {
		t.Error("a line over the limit was taken")
	}
	for _, n := range []int{1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200_000} {
		l := newLines(strings.NewReader(strings.Repeat("x", n) + "\nnext\n"))
		if !l.next() || len(l.text) != n || !l.next() || string(l.text) != "next" || l.next() || l.failed() != nil {
			t.Errorf("line of %d bytes", n)
		}
	}
}

func TestNumbers(t *testing.T) {
	var i8 int8
	var i int64
	var u uint64
	var u32 uint32
	for _, c := range []struct {
		in   string
		ok   bool
		into func(string) bool
	}{
		{"0", true, func(s string) bool { return number([]byte(s), &u) && u == 0 }},
		{"18446744073709551615", true, func(s string) bool { return number([]byte(s), &u) && u == math.MaxUint64 }},
		{"18446744073709551616", false, func(s string) bool { return number([]byte(s), &u) }},
		{"-1", false, func(s string) bool { return number([]byte(s), &u) }},
		{"-1", true, func(s string) bool { return number([]byte(s), &i) && i == -1 }},
		{"-9223372036854775808", true, func(s string) bool { return number([]byte(s), &i) && i == math.MinInt64 }},
		{"-9223372036854775809", false, func(s string) bool { return number([]byte(s), &i) }},
		{"9223372036854775808", false, func(s string) bool { return number([]byte(s), &i) }},
		{"-18446744073709551615", false, func(s string) bool { return number([]byte(s), &i) }},
		{"127", true, func(s string) bool { return number([]byte(s), &i8) && i8 == 127 }},
		{"128", false, func(s string) bool { return number([]byte(s), &i8) }},
		{"-128", true, func(s string) bool { return number([]byte(s), &i8) && i8 == -128 }},
		{"-129", false, func(s string) bool { return number([]byte(s), &i8) }},
		{"4294967296", false, func(s string) bool { return number([]byte(s), &u32) }},
		{"", false, func(s string) bool { return number([]byte(s), &u) }},
		{"-", false, func(s string) bool { return number([]byte(s), &i) }},
		{"+1", false, func(s string) bool { return number([]byte(s), &u) }},
		{" 1", false, func(s string) bool { return number([]byte(s), &u) }},
		{"1a", false, func(s string) bool { return number([]byte(s), &u) }},
		{"ffffffffffffffff", true, func(s string) bool { return hex([]byte(s), &u) && u == math.MaxUint64 }},
		{"10000000000000000", false, func(s string) bool { return hex([]byte(s), &u) }},
		{"0x1", false, func(s string) bool { return hex([]byte(s), &u) }},
		{"777", true, func(s string) bool { return octal([]byte(s), &u) && u == 511 }},
		{"8", false, func(s string) bool { return octal([]byte(s), &u) }},
	} {
		if got := c.into(c.in); got != c.ok {
			t.Errorf("%q: %v, want %v", c.in, got, c.ok)
		}
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{"x": "x", `a\nb`: "a\nb", `a\\nb`: `a\nb`, `a\`: `a\`, `\x`: `\x`, `\\\n`: "\\\n"} {
		if got := unescapeName([]byte(in)); got != want {
			t.Errorf("unescapeName(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{`a\040b`: "a b", `\134040`: `\040`, `\04`: `\04`, `\999`: `\999`, `\777`: `\777`, `x\012`: "x\n"} {
		if got := unescape([]byte(in)); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
	st, err := ParseStat([]byte("7 (a) b) (c" + "\n)" + statTail))
	if err != nil || st.Comm != "a) b) (c\n" || st.PPID != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestOlderKernels has lines as kernels before 6.18 have them, by the kernel's history.
func TestOlderKernels(t *testing.T) {
	// 5.10: no ino (5.14), no eventfd-semaphore (6.5).
	f, err := ParseFDInfo(strings.NewReader("pos:\t0\nflags:\t02\nmnt_id:\t15\neventfd-count:                0\neventfd-id: 7\n"))
	if err != nil || f.EventFD.ID != 7 || f.EventFD.SemaphoreKnown {
		t.Errorf("%+v, %v", f, err)
	}
	// Before 4.12 an epoll did not show the file.
	f, err = ParseFDInfo(strings.NewReader("pos:\t0\nflags:\t02\nmnt_id:\t15\ntfd:        5 events:       19 data: ffffffff\n"))
	if err != nil || f.EventPoll[0] != (EventPollTarget{TFD: 5, Events: 0x19, Data: 0xffffffff}) {
		t.Errorf("%+v, %v", f, err)
	}
	// A watch on a file system without handles.
	f, err = ParseFDInfo(strings.NewReader("pos:\t0\nflags:\t00\ninotify wd:1 ino:2 sdev:3 mask:4 ignored_mask:0\n"))
	if err != nil || f.Inotify[0].Handle != nil {
		t.Errorf("%+v, %v", f, err)
	}
	// A flag and a counter of a kernel to come.
	all, err := smapsOf(strings.NewReader(goodMap + "Surprise:   1 kB\nProtectionKey:  3\nVmFlags: rd zz ??\n"))
	if err != nil || len(all) != 1 || len(all[0].UnknownFlags) != 2 || all[0].Extra[0] != (Field{"Surprise", "1 kB"}) || all[0].ProtectionKey != 3 {
		t.Errorf("%+v, %v", all, err)
	}
	// A kernel thread, a blocked lock, a lock of a file that is gone.
	locks, err := ParseLocks(strings.NewReader("1: POSIX  ADVISORY  READ  1 <none>:0 0 EOF\n1: -> POSIX  ADVISORY  WRITE 2 fe:00:5 0 EOF\n"))
	if err != nil || locks[0].Inode != 0 || !locks[1].Blocked || locks[1].Major != 0xfe {
		t.Errorf("%+v, %v", locks, err)
	}
	// Propagation, an empty source.
	mounts, err := ParseMountInfo(strings.NewReader("1 2 0:4 / / rw shared:1 master:2 propagate_from:3 unbindable new:5 - tmpfs  rw\n"))
	if err != nil || mounts[0].Source != "" || mounts[0].Master != 2 || mounts[0].From != 3 || !mounts[0].Unbind || mounts[0].Tags[0] != "new:5" {
		t.Errorf("%+v, %v", mounts, err)
	}
}

func TestPages(t *testing.T) {
	pages := make([]Page, 2)
	n, err := ParsePages([]byte{0, 0, 0, 0, 0, 0, 0, 0x82, 5, 0, 0, 0, 0, 0, 0x80, 0x64}, pages)
	if err != nil || n != 2 {
		t.Fatal(n, err)
	}
	p, q := pages[0], pages[1]
	if !p.Present() || !p.UffdWP() || p.Swapped() || p.File() || p.SoftDirty() || p.Exclusive() || p.Guard() || p.PFN() != 0 {
		t.Errorf("%#x", uint64(p))
	}
	if q.Present() || !q.Swapped() || !q.File() || !q.SoftDirty() || !q.Guard() || q.Exclusive() || q.PFN() != 5 {
		t.Errorf("%#x", uint64(q))
	}
	for _, size := range []int{7, 24} {
		if _, err := ParsePages(make([]byte, size), pages); err == nil {
			t.Errorf("%d bytes for 2 pages", size)
		}
	}
}

func TestFilesThatAreNotThere(t *testing.T) {
	p := New(fstest.MapFS{"1/fd/x": {}, "1/comm": {Data: []byte("x")}, "1/stat": {Data: []byte("?")}}).Process(1)
	if _, err := p.Status(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Status: %v", err)
	}
	if err := p.Smaps(nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Smaps: %v", err)
	}
	if _, err := p.FDs(); err == nil || !strings.Contains(err.Error(), "/proc/1/fd: ") {
		t.Errorf("FDs: %v", err)
	}
	if _, err := p.Comm(); err == nil {
		t.Error("Comm without a line feed was taken")
	}
	if _, err := p.Stat(); err == nil || !strings.Contains(err.Error(), "/proc/1/stat: ") {
		t.Errorf("Stat: %v", err)
	}
}

func TestVMFlagsString(t *testing.T) {
	if got := (VMRead | VMLocked | VMLockOnFault | 1<<60).String(); got != "rd lo lf 0x1000000000000000" {
		t.Errorf("%q", got)
	}
	if VMLockOnFault != 1<<(len(vmCodes)/2-1) {
		t.Error("flags and codes do not match")
	}
}

// bench is smaps of a process with many mappings.
func bench(b *testing.B) string {
	proc, pid := fixture(b, "linux-6.18.txtar")
	f, err := proc.root.Open(proc.Process(pid).file("smaps"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(bufio.NewReader(f))
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

func BenchmarkSmaps(b *testing.B) {
	text := bench(b)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for range b.N {
		r := NewSmapsReader(strings.NewReader(text))
		var m Smap
		for {
			if err := r.Next(&m); err != nil {
				if !errors.Is(err, io.EOF) {
					b.Fatal(err)
				}
				break
			}
		}
	}
}

func TestTimeOffsets(t *testing.T) {
	got, err := ParseTimeOffsets(strings.NewReader("monotonic          -1 372277828\nboottime       100000         5\nanother 1 2\n"))
	if want := (TimeOffsets{Monotonic: -time.Second + 372277828, Boottime: 100000*time.Second + 5}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}
