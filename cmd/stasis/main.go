// Command stasis freezes running Linux processes to files and brings them back. Called by the name criu it is a drop-in
// for that program. See stasis(1).
//
// The program is over before a limit of processors would matter to the runtime, which reads half a dozen files to know it:
// it is told not to look.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"context"
	"os"
	"runtime/debug"
	"syscall"

	"stasis.example/internal/cli"
)

func main() {
	if os.Getenv("GOGC") == "" {
		// Garbage of 2 MiB, not 4, is collected: what a tree of processes takes is less, and a process alone leaves none.
		debug.SetGCPercent(50)
	}
	p := &cli.Program{
		Args: os.Args, Environ: os.Environ(),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Exec: syscall.Exec,
	}
	os.Exit(p.Run(context.Background()))
}
