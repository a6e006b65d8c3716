// Package entry has the entries of CRIU's images as Go types, with a codec that uses no reflection.
//
// An image file is a magic number and then entries, each a length and a message of protocol buffers (version 2). Package
// image does files and framing; this package does the messages. The types are generated from one table, and so are Append
// and Decode:
//
//	required T  a field of type T, always encoded; Decode fails where it is missing
//	optional T  a *T (a []byte where T is bytes), nil for absent; GetX returns the value or the schema's default
//	repeated T  a []T
//
// Fields that the table does not have are kept in Unknown and written again, so that a file of a newer CRIU passes through
// unharmed. Decode takes input from anywhere: it bounds nesting and refuses numbers that do not fit, known fields of a wrong
// wire type and messages that occur twice. Memory in use is bound by the input's length, at worst some 40 bytes for each.
//
// The names are those of CRIU's schema in Go's spelling, without the suffix _entry.
package entry

//go:generate go run ./gen
