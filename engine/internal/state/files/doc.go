// Package files has open files and what else a process knows by a path: the program, what it maps, where it stands.
// Regular files, directories and the memory devices so far; all else is refused by name.
package files
