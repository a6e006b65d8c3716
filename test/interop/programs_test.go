package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"stasis.example/internal/testkit"
)

// pythonHeap fills a heap of 200 MB and says whether it is as it was, when it is asked.
const pythonHeap = `
import hashlib, os, signal
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

// pythonFork has children that share what it has in memory, and see whether they all still have it.
const pythonFork = `
import os, signal
heap = [str(i) * 100 for i in range(20000)]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
children = []
for i in range(4):
    pid = os.fork()
    if pid == 0:
        heap[i] = "mine"
        signal.sigwait({signal.SIGUSR1})
        good = heap[i] == "mine" and all(heap[k] == str(k) * 100 for k in range(20000) if k != i)
        os._exit(7 if good else 1)
    children.append(pid)
os.write(1, b"ready\n")
signal.sigwait({signal.SIGUSR1})
for pid in children:
    os.kill(pid, signal.SIGUSR1)
bad = [pid for pid in children if os.waitpid(pid, 0)[1] != 7 << 8]
os.write(1, b"FAIL children " + repr(bad).encode() + b"\n" if bad else b"ok\n")
`

// gccAtWork compiles until it is asked, and compares what comes out each time. It is dumped in the middle, with the compiler, the
// assembler and their files.
const gccAtWork = `
trap 'asked=1' USR1
gcc -O2 -c "$1" -o first.o || echo FAIL
echo ready
until [ "$asked" ]; do
	gcc -O2 -c "$1" -o again.o || echo FAIL it does not compile
	cmp first.o again.o || echo FAIL it compiles to something else
done
echo ok
`

// programs are what people have.
func programs() []subject {
	return []subject{
		programOf("python heap", pythonAsks(pythonHeap), testkit.Program("python3")),
		programOf("python forks", pythonAsks(pythonFork), testkit.Program("python3")),
		programOf("go", goProgram("collector"), testkit.Program("go")),
		programOf("go memory", goProgram("memory"), testkit.Program("go")),
		programOf("dash", shell("dash"), testkit.Program("dash"), testkit.Program("tr")),
		programOf("bash", shell("bash"), testkit.Program("bash"), testkit.Program("tr")),
		programOf("gcc", func(t *testing.T) testkit.VictimSpec {
			return testkit.VictimSpec{Name: "/bin/sh", Args: []string{"-c", gccAtWork, "sh", bigSource(t)}}
		}, testkit.Program("gcc"), testkit.Program("cmp")),
		programOf("node", func(t *testing.T) testkit.VictimSpec {
			const count = `console.log("ready"); let n = 0; setInterval(() => console.log(String(++n)), 10)`
			return testkit.VictimSpec{Name: lookPath(t, "node"), Args: []string{"-e", count}, Env: []string{"UV_USE_IO_URING=0"}}
		}, testkit.Program("node")).with(func(s *subject) { s.check = countsOn }),
		programOf("java", func(t *testing.T) testkit.VictimSpec {
			dir := t.TempDir()
			if output, err := exec.CommandContext(t.Context(), "javac", "-d", dir, "testdata/Counter.java").CombinedOutput(); err != nil {
				t.Fatalf("javac: %v\n%s", err, output)
			}
			return testkit.VictimSpec{Name: lookPath(t, "java"), Args: []string{"-XX:-UsePerfData", "-Xmx64m", "-cp", dir, "Counter"}}
		}, testkit.Program("javac"), testkit.Program("java")).with(func(s *subject) { s.check = countsOn }),
	}
}

// What people have is dumped and restored in the four ways.
func TestProgramsFourWays(t *testing.T) {
	testkit.Need(t, testkit.Root)
	for _, s := range programs() {
		t.Run(s.name, s.survives)
	}
}

// programOf is a program as a subject. What it is started with is made once for all ways.
func programOf(name string, spec func(*testing.T) testkit.VictimSpec, needs ...testkit.Requirement) subject {
	return subject{name: name, needs: needs, start: func(t *testing.T) *testkit.Victim {
		s := spec(t)
		s.Dir = t.TempDir()
		return s.Start(t)
	}}
}

// countsOn makes sure that a program that counts has left nothing out, and ends it.
func countsOn(t *testing.T, v *testkit.Victim) {
	t.Helper()
	text, err := os.ReadFile(v.Output)
	if err != nil {
		t.Fatal(err)
	}
	const more = 5
	last := strings.Count(string(text), "\n") + more
	for n := 1; n <= last; n++ {
		if line := v.NextLine(); line != strconv.Itoa(n) {
			t.Fatalf("it counted %q in the place of %d", line, n)
		}
	}
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
}

// pythonAsks runs a program in Python.
func pythonAsks(text string) func(*testing.T) testkit.VictimSpec {
	return func(t *testing.T) testkit.VictimSpec {
		return testkit.VictimSpec{Name: lookPath(t, "python3"), Args: []string{"-c", text}}
	}
}

// shell forks all the while. It has no $(…): a trap that comes while bash 5.2 reads what is in there makes it lose its place, with "unexpected
// EOF while looking for matching", in one run of a hundred, dumped or not.
func shell(name string) func(*testing.T) testkit.VictimSpec {
	const script = `trap 'asked=1' USR1; echo ready; until [ "$asked" ]; do echo abc | tr a-c x-z | { read x; [ "$x" = xyz ]; } || echo FAIL; done; echo ok`
	return func(t *testing.T) testkit.VictimSpec {
		return testkit.VictimSpec{Name: lookPath(t, name), Args: []string{"-c", script}}
	}
}

func lookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// goProgram builds a program of testdata, once.
func goProgram(name string) func(*testing.T) testkit.VictimSpec {
	var once sync.Once
	var text []byte
	var failed error
	return func(t *testing.T) testkit.VictimSpec {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		once.Do(func() {
			output, err := exec.Command("go", "build", "-o", path, "./testdata/"+name).CombinedOutput()
			if err != nil {
				failed = fmt.Errorf("go build: %w\n%s", err, output)
				return
			}
			text, failed = os.ReadFile(path)
		})
		if failed == nil {
			failed = testkit.WriteProgram(path, text)
		}
		if failed != nil {
			t.Fatal(failed)
		}
		return testkit.VictimSpec{Name: path}
	}
}

// bigSource writes a program that takes a compiler some tenths of a second.
func bigSource(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	const functions = 60
	for i := range functions {
		fmt.Fprintf(&b, "int f%d(int a, int b) { int s = %d; for (int i = 0; i < a; i++) s += (i ^ b) * %d %% (s | 1); return s; }\n", i, i, i+3)
	}
	path := filepath.Join(t.TempDir(), "big.c")
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
