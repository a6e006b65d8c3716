// Package libcriu holds the C library libcriu.so.2 and its tests. There is no Go in the library: this package only
// exists so that `go generate` writes its tables and `go test` builds and drives it.
package libcriu

//go:generate go run ./gen
