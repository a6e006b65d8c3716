// Package collect is what the kinds of state work with when they collect: a tree of processes that stand still, the snapshot
// that is to be filled, and a place for everything that cannot be saved.
//
// A kind's Collect is called once for the whole tree, after all of it has been stopped and before anything is run in it. What
// it can see from outside it takes at once. What only the process itself can tell it asks for by Ask, of the process or of a
// thread: the calls of all kinds are gathered in a [Batch] and made in one go, and what they returned is handed to the kinds
// afterwards.
package collect
