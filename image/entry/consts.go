package entry

// Values of TaskCore.TaskState. What CRIU writes for a child that has died and was not waited for is TaskDead; TaskZombie
// is in its list and a reader takes it as the same.
const (
	TaskAlive   = 1
	TaskDead    = 2
	TaskStopped = 3
	TaskZombie  = 6
)

// Bits of VMA.Status. They say what a mapping is and who restores it. CRIU's other bits (28 to 31) are for its own use while
// it runs and are in no image.
const (
	VMARegular        = 1 << 0  // saved and restored; on all but the vsyscall page
	VMAStack          = 1 << 1  // the stack; newer CRIUs do not set it
	VMAVsyscall       = 1 << 2  // the vsyscall page, which is there without doing
	VMAVDSO           = 1 << 3  // the vDSO
	VMAHeap           = 1 << 5  // has some of what brk gave; informative
	VMAFilePrivate    = 1 << 6  // MAP_PRIVATE of a file
	VMAFileShared     = 1 << 7  // MAP_SHARED of a file
	VMAAnonShared     = 1 << 8  // MAP_SHARED without a file
	VMAAnonPrivate    = 1 << 9  // MAP_PRIVATE without a file
	VMASysVIPC        = 1 << 10 // a System V segment
	VMASocket         = 1 << 11 // of a packet socket
	VMAVvar           = 1 << 12 // the data pages of the vDSO
	VMAAIORing        = 1 << 13 // a ring of io_setup
	VMAMemFD          = 1 << 14 // a memfd
	VMAShadowStack    = 1 << 15 // of CET
	VMAGuard          = 1 << 16 // no mapping of the kernel's: pages that MADV_GUARD_INSTALL guards, listed after all others
	VMAUprobes        = 1 << 17 // the kernel's own for uprobes; not saved
	VMANotAccountable = 1 << 18 // not counted against the commit limit
	VMAExtPlugin      = 1 << 27 // restored by a plugin
)
