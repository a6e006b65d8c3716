// Package mem has the address space: its bounds, its mappings, and which of its pages have to be saved.
package mem
