//go:build ignore

// Record writes a fixture: go run record.go PID. A name that ends with .link is a symbolic link, one that ends with .quoted
// a file whose content is a quoted Go string, because it is not text or does not end with a line feed.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"unicode/utf8"
)

func main() {
	pid := os.Args[1]
	for _, file := range []string{
		"stat", "status", "maps", "smaps", "mountinfo", "limits", "timers", "cgroup", "uid_map", "gid_map", "auxv", "cmdline", "environ",
		"comm", "loginuid", "oom_score_adj", "personality", "task/" + pid + "/children",
	} {
		write(pid + "/" + file)
	}
	for _, pattern := range []string{"task/*/comm", "task/*/stat", "fdinfo/*"} {
		names, err := filepath.Glob("/proc/" + pid + "/" + pattern)
		check(err)
		for _, name := range names {
			rel, err := filepath.Rel("/proc", name)
			check(err)
			write(rel)
		}
	}
	for _, pattern := range []string{"fd/*", "ns/*", "exe", "cwd", "root"} {
		names, err := filepath.Glob("/proc/" + pid + "/" + pattern)
		check(err)
		for _, name := range names {
			text, err := os.Readlink(name)
			check(err)
			rel, err := filepath.Rel("/proc", name)
			check(err)
			fmt.Printf("-- %s.link --\n%s\n", rel, strconv.Quote(text))
		}
	}
	write("locks")
	write("sys/kernel/ns_last_pid")
}

func write(name string) {
	b, err := os.ReadFile("/proc/" + name)
	check(err)
	if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 || !bytes.HasSuffix(b, []byte("\n")) {
		fmt.Printf("-- %s.quoted --\n%s\n", name, strconv.Quote(string(b)))
		return
	}
	fmt.Printf("-- %s --\n%s", name, b)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
