// Package plan turns images into a plan: what a restore will do, decided before the first process exists. It is pure, and the same
// images always give the same plan. Every refusal happens here, and all of them together: what is missing, damaged, contradicts
// itself, or is not supported by this engine. What is left to fail later is what only this machine knows: a pid that is taken,
// a file that is gone, a right that is missing.
//
// A plan has:
//
//   - the snapshot that the images are of;
//   - Steps: how the shape of the tree is made, fork by fork, with helpers where a session's or a group's leader is gone,
//     and where between the forks memory is filled so that children share pages with their parents;
//   - Opens: how each file comes to be open in the engine;
//   - Watches: which task adds what to which epoll file, and in which order;
//   - Memory: what each address space gets from the images, and what from the process it was forked by.
//
// A plan can be carried out more than once, and with other pids: nothing in it is used up.
package plan
