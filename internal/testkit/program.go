package testkit

import (
	"os"
	"syscall"
)

// WriteProgram writes a file that is to be executed. A child that another test starts meanwhile would have the file open to write until it
// executes its own program, and the kernel would refuse to execute this one (ETXTBSY): so nothing is forked as long.
func WriteProgram(path string, text []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, text, 0o755)
}
