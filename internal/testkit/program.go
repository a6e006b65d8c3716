package testkit

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// WriteProgram writes a file that is to be executed. A child that another test starts meanwhile would have the file open to write until it
// executes its own program, and the kernel would refuse to execute this one (ETXTBSY): so nothing is forked as long.
func WriteProgram(path string, text []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, text, 0o755)
}

// ProgramWithCapability is this test program in a file that gives a capability to whoever executes it. It is for tests that run as root.
func ProgramWithCapability(t testing.TB, capability int) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(SharedDir(t), "program")
	if err := WriteProgram(path, self); err != nil {
		t.Fatal(err)
	}
	const revision2, effective = 0x02000000, 1
	words := [5]uint32{revision2 | effective} // then permitted and inheritable, the low words first
	words[1+2*(capability/32)] = 1 << (capability % 32)
	var value []byte
	for _, word := range words {
		value = binary.LittleEndian.AppendUint32(value, word)
	}
	if err := unix.Setxattr(path, "security.capability", value, 0); err != nil {
		t.Fatal(err)
	}
	return path
}
