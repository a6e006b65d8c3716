// Program collector keeps its garbage collector busy from several goroutines until it is asked.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

func main() {
	runtime.GOMAXPROCS(4)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var bad sync.Map
	read, write, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	go func() {
		buf := make([]byte, 32)
		for {
			if _, err := read.Read(buf); err != nil {
				return
			}
		}
	}()
	for g := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				block := make([]byte, 100000)
				block[0] = byte(i)
				sum := sha256.Sum256(block)
				if _, err := write.Write(sum[:]); err != nil {
					bad.Store(g, err)
				}
				if sha256.Sum256(block) != sum {
					bad.Store(g, "sum")
				}
			}
		})
	}
	fmt.Println("ready")
	<-asked
	close(stop)
	wg.Wait()
	verdict := "ok"
	bad.Range(func(g, why any) bool {
		verdict = fmt.Sprint("FAIL goroutine ", g, ": ", why)
		return false
	})
	fmt.Println(verdict)
}
