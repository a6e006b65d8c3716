// Package snapshot is the neutral model of a tree of processes: what a dump has seen and what a restore shall make. It is
// plain data. It knows no kernel interface, no image and no machine but as data, builds everywhere, and a value of it can be
// compared, printed and made by hand in a test.
//
// The model follows the kernel, not the files:
//
//	Tree ── Tasks ─┬─ Threads: registers, mask, credentials, scheduling …
//	  │            └─ numbers of what it has, which other tasks may have too:
//	  ├─ Spaces        address spaces             (shared by CLONE_VM)
//	  ├─ Tables        descriptor tables          (CLONE_FILES): slot → file
//	  ├─ FSContexts    root, working directory    (CLONE_FS)
//	  ├─ Handlers      signal dispositions        (CLONE_SIGHAND)
//	  ├─ Files         open file descriptions     (dup, fork, SCM_RIGHTS)
//	  └─ Pipes         what the two ends of a pipe, or the openers of a fifo, have in common
//
// A shared thing is there once and is referred to by its number. Numbers are those of the images where there are images;
// they mean nothing to the kernel.
//
// # Conventions
//
// Addresses, offsets and sizes are uint64 and in bytes, whatever machine runs the program. Bits (open flags, PROT_, MAP_,
// clone flags, signal numbers) have the values that Linux gives them on the architecture of the tree. Times are what the
// system calls take, not Go durations, since they need not fit one. The zero value of an optional field means "none" or, for
// a pointer, "not known"; each field says which.
//
// A path is one of a mount as seen from the root of the tree; who opens it does so under a root that he holds, never by
// handing it to the kernel as it is.
package snapshot
