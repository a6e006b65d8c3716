// Package engine is the built-in engine: it freezes processes to CRIU's images without CRIU.
//
// So far it dumps and restores a single process that leads its own session, with any number of threads, private memory,
// regular files, and the credentials of the engine itself; the rest it refuses by name. Both directions are
// interchangeable with CRIU's.
package engine
