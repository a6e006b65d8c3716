// Command stasis freezes running Linux processes to files and brings them back. Called by the name criu it is a drop-in
// for that program. See stasis(1).
package main

import (
	"context"
	"os"
	"syscall"

	"stasis.example/internal/cli"
)

func main() {
	p := &cli.Program{
		Args: os.Args, Environ: os.Environ(),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Exec: syscall.Exec,
	}
	os.Exit(p.Run(context.Background()))
}
