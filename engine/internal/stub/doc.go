// Package stub makes processes, and makes them execute system calls while they are being made.
//
// A program of ours is started that does nothing. The root of a tree is copied from it by clone3 under the number that is
// wanted, the others from the root and from each other, threads likewise. Each is traced from its first instant with
// PTRACE_O_EXITKILL: nothing half-made survives us, so none of package remote's care to bring a process back by itself is
// needed here, and a batch of system calls ends in an int3.
//
// Every process that comes from the program has the same two things of ours, at the same addresses and numbers:
//
//   - the area, one mapping that lies where no process of the tree has anything: the code that runs a table of calls, the
//     table, and room for their arguments;
//   - the files that the engine has opened for the tree, at numbers that no descriptor of the tree has. They are inherited,
//     not sent, so a file that several processes have is one file by construction, and neither pid namespaces nor
//     rules about ptrace matter.
//
// [Process.Finish] takes both away and gives the threads the registers that they go on with. From then on the process is
// what it was, and [Process.LetGo] lets it run.
package stub
