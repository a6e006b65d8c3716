// Program memory has mappings of many kinds, and says whether they are as they were when it is asked.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

const (
	page         = 4096
	madvDontDump = 16
	madvDontFork = 10
	madvNoHuge   = 15
	guardInstall = 102
	mapNoReserve = 0x4000
	sparse       = 64 << 30
)

func fill(b []byte, seed byte) {
	for i := range b {
		b[i] = seed + byte(i*7) + byte(i>>12)
	}
}

func filled(b []byte, seed byte) bool {
	want := make([]byte, len(b))
	fill(want, seed)
	return bytes.Equal(b, want)
}

func mmap(size int, prot, flags, fd int) []byte {
	b, err := syscall.Mmap(fd, 0, size, prot, flags)
	if err != nil {
		panic(err)
	}
	return b
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func madvise(b []byte, advice int) { must(syscall.Madvise(b, advice)) }

// maps returns what smaps says of the mappings that the program made, without sizes of what they occupy.
func maps() string {
	text, err := os.ReadFile("/proc/self/smaps")
	must(err)
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "VmFlags") || !strings.Contains(strings.Fields(line)[0], ":") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func main() {
	runtime.LockOSThread()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	const rw = syscall.PROT_READ | syscall.PROT_WRITE
	const anon = syscall.MAP_PRIVATE | syscall.MAP_ANON

	noAccess := mmap(8*page, rw, anon, -1)
	fill(noAccess, 1)
	must(syscall.Mprotect(noAccess, syscall.PROT_NONE))
	readOnly := mmap(8*page, rw, anon, -1)
	fill(readOnly, 2)
	must(syscall.Mprotect(readOnly, syscall.PROT_READ))
	huge := mmap(16<<20, rw, anon, -1)
	fill(huge, 3)
	large := mmap(sparse, rw, anon|mapNoReserve, -1)
	fill(large[sparse/2:][:page], 4)
	advised := mmap(8*page, rw, anon, -1)
	madvise(advised, madvDontDump)
	madvise(advised, madvDontFork)
	madvise(advised, madvNoHuge)
	fill(advised, 5)
	locked := mmap(2*page, rw, anon, -1)
	must(syscall.Mlock(locked))
	fill(locked, 6)
	guarded := mmap(8*page, rw, anon, -1)
	fill(guarded, 7)
	_, _, errno := syscall.Syscall(syscall.SYS_MADVISE, uintptr(unsafe.Pointer(&guarded[2*page])), 2*page, guardInstall)
	hasGuards := errno == 0
	zeros := mmap(4*page, rw, anon, -1)
	sum := byte(0)
	for _, b := range zeros { // maps the zero page
		sum += b
	}

	f, err := os.Create("file")
	must(err)
	content := make([]byte, 4*page)
	fill(content, 8)
	_, err = f.Write(content)
	must(err)
	private := mmap(4*page, rw, syscall.MAP_PRIVATE, int(f.Fd()))
	fill(private[page:2*page], 9)
	shared := mmap(4*page, rw, syscall.MAP_SHARED, int(f.Fd()))
	must(f.Close())

	runtime.GC()
	fmt.Println("ready")
	<-asked
	var bad []string
	check := func(name string, ok bool) {
		if !ok {
			bad = append(bad, name)
		}
	}
	must(syscall.Mprotect(noAccess, syscall.PROT_READ))
	check("PROT_NONE", filled(noAccess, 1))
	check("PROT_READ", filled(readOnly, 2))
	check("16 MiB", filled(huge, 3))
	check("sparse", filled(large[sparse/2:][:page], 4) && large[0] == 0)
	check("advised", filled(advised, 5))
	check("locked", filled(locked, 6))
	want := make([]byte, 8*page)
	fill(want, 7)
	check("around guard pages", bytes.Equal(guarded[:2*page], want[:2*page]) && bytes.Equal(guarded[4*page:], want[4*page:]))
	if hasGuards {
		// Reading a guard page through a system call fails and does not kill.
		null, err := os.OpenFile("guard", os.O_WRONLY|os.O_CREATE, 0o600)
		must(err)
		_, err = syscall.Write(int(null.Fd()), guarded[2*page:3*page])
		check("guard pages", err == syscall.EFAULT)
	}
	check("zeros", bytes.Equal(zeros, make([]byte, 4*page)))
	check("private mapping of a file", filled(private[page:2*page], 9) && bytes.Equal(private[2*page:], content[2*page:]))
	check("shared mapping of a file", bytes.Equal(shared, content))
	text := maps()
	check("flags", strings.Contains(text, " dd ") && strings.Contains(text, " dc ") && strings.Contains(text, " lo ") && strings.Contains(text, " nr "))
	if len(bad) > 0 {
		fmt.Println("FAIL", strings.Join(bad, ", "))
		os.Exit(1)
	}
	fmt.Println("ok")
}
