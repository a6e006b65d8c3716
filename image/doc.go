// Package image reads and writes the image directories of CRIU: what a dump leaves and a restore starts from.
//
// # The directory
//
// A dump is a flat directory of small files and a few big ones. Most are lists of entries (package entry has their types);
// the contents of memory and of files are plain bytes.
//
//	inventory.img        what this directory holds and in which version
//	pstree.img           the processes: pid, parent, group, session, threads
//	core-TID.img         a thread: registers; the first thread has the process too: signals, timers, limits
//	ids-PID.img          numbers of the kernel objects it shares: memory, descriptors, fs, handlers, namespaces
//	mm-PID.img           the address space: its bounds and mappings
//	pagemap-PID.img      which pages of it are saved, and in which file
//	pages-N.img          the pages, nothing else
//	fs-PID.img           working directory, root, umask
//	fdinfo-N.img         a descriptor table: slot, flags, and the number of the open file
//	files.img            the open files, whatever their kind, by number
//	pipes-data.img …     what is in pipes and queues: entries, each with its bytes after it
//	stats-dump           what the dump took
//	parent               a symbolic link to the directory of an earlier dump, where unchanged pages are
//
// # A file
//
// Numbers are little-endian. Three kinds of files differ in how they begin; pages-N.img and the archives of file systems
// have no header at all.
//
//	 most images            inventory.img        stats-dump, irmap-cache
//	┌──────────────────┐   ┌────────────────┐   ┌──────────────────┐
//	│ IMG_COMMON  u32  │   │ INVENTORY u32  │   │ IMG_SERVICE u32  │
//	│ own magic   u32  │   ├────────────────┤   │ own magic   u32  │
//	├──────────────────┤   │ length    u32  │   ├──────────────────┤
//	│ length      u32  │   │ entry          │   │ length      u32  │
//	│ entry            │   └────────────────┘   │ entry            │
//	│ (bytes after it) │                        └──────────────────┘
//	├──────────────────┤    The length counts the entry only. In some images the entry says how many bytes of
//	│ length      u32  │    payload follow it (pipes-data.img); others have one entry and payload to the end of
//	│ entry            │    the file (ghost-file-X.img).
//	└ … end of file    ┘
//
// # Pages
//
// A pagemap begins with a head that names the pages file. Each entry after it is a run of pages with an address, a count and
// flags, in ascending order. A run that is present has its pages in the pages file, next after those of the run before; a
// run that is in the parent is looked up in the pagemap of the same process in the parent directory, where it may again be
// in the parent.
//
//	pagemap-7.img                         pages-1.img          parent/pagemap-7.img      parent/pages-1.img
//	  pages_id 1
//	  0x400000  2 pages  present  ──────▶ page 0, 1              0x400000 2 present ───▶ 0, 1
//	  0x7f0000  3 pages  in parent ──────────────────────────▶   0x7f0000 4 present ───▶ 2, 3, 4 (5 is not used)
//	  0x7fff00  1 page   present  ──────▶ page 2
//
// [OpenChain] follows this and says for every run in which file, and where, its pages are.
//
// # Trust
//
// An image directory is input from anywhere. Readers bound what they allocate by what they have read and by [Limits], names
// never leave the directory, parents never leave the directory above it, and a file that is cut off is an error that says
// where. Images with compressed pages (CRIU after 4.2) are refused by name.
//
// The package touches no kernel interface and builds on every system.
package image
