// Package apply is what the kinds of state restore with: the processes of a tree that are being made, the files that the
// engine has opened for them, and batches of system calls.
//
// A kind's Apply is called once for each process, or each thread, at its place in the engine's table of appliers. It does not
// make calls itself: it adds them to the [Batch] of the process or of the thread, which is run when all kinds of the same
// moment have added theirs. A call that fails ends the restore, and the error says what it was for. What can be
// done from outside (scheduling, files of /proc) an Apply does at once, or leaves to the batch's Then.
//
// Kinds of files have an Open instead, which opens or makes the file in the engine, before there is a process.
package apply
