package criu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// freezer is the state of a cgroup that a dump was told to freeze. A peer that dies in the meantime leaves the cgroup
// frozen, and with it the tree that was to be dumped, which nothing would wake.
type freezer struct {
	file, thawed string // and what to write into it
	was          string // before the dump
}

// watchFreezer remembers whether the cgroup is frozen already. It returns nil where there is no such cgroup: the peer
// will say so.
func watchFreezer(cgroup string) *freezer {
	for _, f := range []freezer{
		{file: "freezer.state", thawed: "THAWED"}, // cgroup-v1/freezer-subsystem
		{file: "cgroup.freeze", thawed: "0"},      // cgroup-v2, cgroup.freeze
	} {
		f.file = filepath.Join(cgroup, f.file)
		if text, err := os.ReadFile(f.file); err == nil {
			f.was = strings.TrimSpace(string(text))
			return &f
		}
	}
	return nil
}

// thaw thaws the cgroup unless it was frozen before. The peer must be dead.
func (f *freezer) thaw() error {
	if f == nil || f.was != f.thawed {
		return nil
	}
	// Even where it says thawed: writing what is so already does nothing.
	if err := os.WriteFile(f.file, []byte(f.thawed), 0); err != nil {
		return fmt.Errorf("the cgroup that was frozen for the dump cannot be thawed: %w", err)
	}
	return nil
}
