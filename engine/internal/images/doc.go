// Package images holds the entries of one dump in memory: what the packages of engine/internal/state turn snapshots into and
// read them from. [Read] takes a whole directory, [Set.Write] makes one; neither looks at pages, which never are in memory.
//
// Reading trusts nothing. What is missing, damaged or of no use goes into a [Report], all of it and not only the first, and
// reading goes on, so that a person who wants to know why a directory cannot be restored is told once.
package images
