// Program direct dumps with the built-in engine, without the command line in front of it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"stasis.example/criu"
	"stasis.example/engine"
)

func main() {
	flags := flag.NewFlagSet("direct", flag.ExitOnError)
	pid := flags.Int("t", 0, "the root of the tree")
	dir := flags.String("D", ".", "the images")
	running := flags.Bool("R", false, "leave it running")
	log := flags.String("o", "dump.log", "the log")
	if len(os.Args) < 2 || os.Args[1] != "dump" {
		fmt.Fprintln(os.Stderr, "usage: direct dump -t PID -D DIR [-o LOG] [-R]")
		os.Exit(2)
	}
	_ = flags.Parse(os.Args[2:]) // it exits
	o := criu.DumpOptions{PID: *pid, ImagesDir: *dir, LeaveRunning: *running, LogFile: *log}
	if _, err := criu.New(engine.New()).Dump(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
