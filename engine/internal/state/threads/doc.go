// Package threads has what a thread is apart from memory: registers, vector state, robust list, restartable sequences,
// signal stack, name, scheduling.
package threads
