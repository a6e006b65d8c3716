// Package test tests the C library: its tables, its behaviour beside the reference (Debian's libcriu), its bounds, and
// real checkpoints through it. It holds no code of its own, and no cgo: the tests compile C programs and run them.
package test
