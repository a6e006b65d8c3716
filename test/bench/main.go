// Program bench compares the built-in engine with CRIU: the same work done by the two in turn, in one run, and the medians
// set side by side. It prints Markdown.
//
//	go run ./test/bench [-rounds N] [-case REGEXP] [-curves=false]
//
// Absolute times are this machine's in this hour: what is to be compared with other runs is the ratio. Before each round a
// fixed piece of work is timed, and the spread of that says how much else the machine had to do meanwhile.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"stasis.example/internal/testkit"
)

func main() {
	rounds := flag.Int("rounds", 11, "how often each program does each piece of work")
	only := flag.String("case", "", "only the cases that match")
	curves := flag.Bool("curves", true, "how cost grows with pages, mappings, files, threads, processes")
	restores := flag.Bool("restores", true, "restores too")
	stasis := flag.String("stasis", "bin/stasis --engine builtin", "the program that is measured")
	criu := flag.String("criu", ".tools/criu/bin/criu", "the program that it is compared with")
	victims := flag.String("victims", "bin/victims", "where the victims are")
	memory := flag.String("tmpfs", "/dev/shm", "a directory in memory")
	disk := flag.String("disk", ".", "a directory on a disk")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		fail(err)
	}
	// Victims are particular about the numbers of their files.
	if err := testkit.CloseInheritedOnExec(); err != nil {
		fail(err)
	}
	b := &bench{rounds: *rounds, restores: *restores, only: pattern, dirs: map[place]string{}}
	for _, p := range []struct{ name, command string }{{"CRIU", *criu}, {"stasis", *stasis}} {
		words := strings.Fields(p.command)
		if words[0], err = filepath.Abs(words[0]); err != nil {
			fail(err)
		}
		b.peers = append(b.peers, peer{p.name, words})
	}
	if b.victims, err = filepath.Abs(*victims); err != nil {
		fail(err)
	}
	for where, path := range map[place]string{inMemory: *memory, onDisk: *disk} {
		if b.dirs[where], err = os.MkdirTemp(path, "bench-"); err != nil {
			fail(err)
		}
		defer os.RemoveAll(b.dirs[where])
	}
	if err := b.run(*curves); err != nil {
		for _, dir := range b.dirs {
			fmt.Fprintln(os.Stderr, "bench: what was written stays in", dir)
		}
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}
