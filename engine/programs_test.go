//go:build amd64

package engine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"stasis.example/internal/testkit"
)

// pythonHeap fills a heap and says whether it is as it was, when it is asked.
const pythonHeap = `
import hashlib, os, signal, sys
heap = [hashlib.sha256(str(i).encode()).hexdigest() * 50 for i in range(60000)]
def digest():
    h = hashlib.sha256()
    for s in heap:
        h.update(s.encode())
    return h.hexdigest()
before = digest()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
os.write(1, b"ready\n")
signal.sigwait({signal.SIGUSR1})
os.write(1, b"ok\n" if digest() == before else b"FAIL the heap has changed\n")
`

// goProgram keeps its collector busy from several goroutines until it is asked.
const goProgram = `package main

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
`

// Programs that people have are restored by CRIU.
func TestDumpOfProgramsIsRestoredByCRIU(t *testing.T) {
	for _, p := range []struct {
		name  string
		needs []testkit.Requirement
		spec  func(t *testing.T) testkit.VictimSpec
	}{
		{"python", []testkit.Requirement{testkit.Program("python3")}, func(t *testing.T) testkit.VictimSpec {
			path, err := exec.LookPath("python3")
			if err != nil {
				t.Fatal(err)
			}
			return testkit.VictimSpec{Name: path, Args: []string{"-c", pythonHeap}}
		}},
		{"go", []testkit.Requirement{testkit.Program("go")}, func(t *testing.T) testkit.VictimSpec {
			return testkit.VictimSpec{Name: buildGo(t, goProgram)}
		}},
		{"sh", []testkit.Requirement{testkit.Program("sh"), testkit.Program("tr")}, func(t *testing.T) testkit.VictimSpec {
			script := `trap 'asked=1' USR1; echo ready; until [ "$asked" ]; do [ "$(echo abc | tr a-c x-z)" = xyz ] || echo FAIL; done; echo ok`
			return testkit.VictimSpec{Name: "/bin/sh", Args: []string{"-c", script}}
		}},
	} {
		t.Run(p.name, func(t *testing.T) {
			testkit.Need(t, append(p.needs, testkit.Root, testkit.CRIU)...)
			spec := p.spec(t)
			spec.Dir = t.TempDir()
			victim := spec.Start(t)
			images := t.TempDir()
			if err := dumpTo(t, New(), images, victim.Pid, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := victim.Wait(); err != nil {
				t.Fatal(err)
			}
			restore(t, images)
			victim.Restored()
			victim.MustVerify()
		})
	}
}

// buildGo builds a program.
func buildGo(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": source, "go.mod": "module program\n\ngo 1.26\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", "program", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("go build: %w\n%s", err, output))
	}
	return filepath.Join(dir, "program")
}
