package criutest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// envPeer names the directory of the peer that a child process is to be.
const envPeer = "CRIUTEST_PEER"

// childLife bounds how long a scripted child process lives, should its test have gone.
const childLife = 2 * time.Minute

// ServeSwrk does nothing, unless this process was started by [Peer.Swrk]: then it is the peer, follows its script and
// exits.
func ServeSwrk() {
	dir := os.Getenv(envPeer)
	if dir == "" || len(os.Args) != 3 || os.Args[1] != "swrk" {
		return
	}
	time.AfterFunc(childLife, func() { os.Exit(3) })
	if err := serveChild(dir, os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "scripted peer:", err)
		os.Exit(2)
	}
	os.Exit(0)
}

func serveChild(dir, number string) error {
	fd, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, "scripts"))
	if err != nil {
		return err
	}
	var scripts []Script
	if err := json.Unmarshal(text, &scripts); err != nil {
		return err
	}
	c, err := newConn(os.NewFile(uintptr(fd), "rpc socket"))
	if err != nil {
		return err
	}
	conversation, err := beginRecord(dir)
	if err != nil {
		return err
	}
	c.child, c.record, c.stop = true, recorder(dir, conversation), make(chan struct{})
	return c.run(scripts[min(conversation, len(scripts)-1)])
}
