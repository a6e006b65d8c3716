package image

import (
	"errors"
	"fmt"

	"stasis.example/image/entry"
)

// maxPID is the kernel's PID_MAX_LIMIT on 64-bit machines.
const maxPID = 1 << 22

// ReadPSTree reads pstree.img and checks that it is a tree: the first process is the root, each other has a parent that
// stands before it, no pid occurs twice. Threads are not checked: CRIU leaves in them what it likes for dead processes.
func ReadPSTree(d Dir) ([]entry.PSTree, error) {
	tree, err := ReadAll[entry.PSTree](d, PSTree, 0)
	if err != nil {
		return nil, err
	}
	bad := func(format string, args ...any) ([]entry.PSTree, error) {
		return nil, fmt.Errorf("image %s: %s: %w", PSTree.File(0), fmt.Sprintf(format, args...), ErrCorrupt)
	}
	if len(tree) == 0 {
		return bad("no processes")
	}
	seen := make(map[uint32]bool, len(tree))
	for i, p := range tree {
		switch {
		case p.PID == 0 || p.PID > maxPID:
			return bad("process %d: %d is no pid", i, p.PID)
		case seen[p.PID]:
			return bad("pid %d occurs twice", p.PID)
		case i == 0 && p.PPID != 0:
			return bad("the first process, %d, has a parent, %d", p.PID, p.PPID)
		case i > 0 && !seen[p.PPID]:
			return bad("the parent of process %d, %d, does not stand before it", p.PID, p.PPID)
		}
		seen[p.PID] = true
	}
	return tree, nil
}

// ReadInventory reads inventory.img and checks that the version is one that this package reads.
func ReadInventory(d Dir) (*entry.Inventory, error) {
	var inv entry.Inventory
	if err := ReadOne(d, Inventory, 0, &inv); err != nil {
		return nil, err
	}
	switch inv.ImgVersion {
	case VersionV1_1, VersionStasis:
		return &inv, nil
	case VersionV1:
		return nil, fmt.Errorf("image %s: version 1.0, of old CRIUs, is not read: %w", Inventory.File(0), errors.ErrUnsupported)
	}
	return nil, fmt.Errorf("image %s: version %d is not known: %w", Inventory.File(0), inv.ImgVersion, errors.ErrUnsupported)
}
