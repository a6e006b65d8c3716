package cli

import (
	"os"

	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// giveBack unmaps what this program has of files for reading, its own code first of all: two thirds of what it occupies, most of which
// the kernel has put there unasked, next to what was used. What is still used comes back from the page cache. It is for the moment
// before memory is moved, which takes little of the program, and room of its own.
//
// A mapping with pages that differ from the file is left alone: they are relocations, a debugger's breakpoints or probes.
func giveBack() {
	_ = proc.New(linux.Proc{}).Process(os.Getpid()).Smaps(func(m *proc.Smap) error {
		if m.Inode != 0 && m.Perm&proc.PermWrite == 0 && m.Anonymous == 0 && m.Swap == 0 && m.Rss > 0 {
			_ = linux.UnmapPages(m.Start, m.End-m.Start) // what it saves is not needed
		}
		return nil
	})
}
