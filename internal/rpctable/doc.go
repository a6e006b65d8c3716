// Package rpctable is the one description of CRIU's RPC in this project: every message, field, number, type, default
// and first version, and, for an option (a field of criu_opts), what it means, which operations read it, who may set
// it through a service, and what it is called in Go, in C and on the command line.
//
// Everything that repeats those facts is generated from here or tested against it: the codec in criu/rpc, the option
// structs of package criu, libcriu's setters, header and symbol list, and docs/options.md. Adding an option to the
// project is adding a row to [Options] and running go generate.
//
// The package is plain data; it has no dependencies and touches no kernel. The facts were taken from CRIU's rpc.proto
// (MIT licence) as shipped by Debian's libcriu-dev 4.2.1 and 4.3, and from CRIU's documented behaviour; the tests hold
// the table against both go-criu's schema and the rpc.proto that libcriu-dev installs.
package rpctable

//go:generate go run ./gen
