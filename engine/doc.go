// Package engine is the built-in engine: it freezes processes to CRIU's images without CRIU.
//
// So far it dumps a single process with any number of threads, private memory and regular files, and refuses the rest by
// name. Restoring is CRIU's still.
package engine
