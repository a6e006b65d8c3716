//go:build amd64

package engine

import (
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

// pythonUser is another user with groups of its own.
const pythonUser = `
import os, signal
os.setgroups([7, 8, 9]); os.setresgid(65534, 65533, 65532); os.setresuid(65534, 65533, 65532)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
def who():
    return os.getgroups(), os.getresgid(), os.getresuid(), open("/proc/self/status").read().split("CapInh")[1].split("Seccomp")[0]
before = who()
os.write(1, b"ready\n")
signal.sigwait({signal.SIGUSR1})
os.write(1, b"ok\n" if who() == before else b"FAIL it is " + str(who()).encode() + b"\n")
`

// pythonEpoll watches a pipe by a number that it has closed, and an epoll file that watches another pipe.
const pythonEpoll = `
import os, select, signal
r, w = os.pipe()
inner, outer = select.epoll(), select.epoll()
outer.register(r, select.EPOLLIN)
kept = os.dup(r)
os.close(r)
r2, w2 = os.pipe()
inner.register(r2, select.EPOLLIN | select.EPOLLET)
outer.register(inner.fileno(), select.EPOLLIN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
os.write(1, b"ready\n")
signal.sigwait({signal.SIGUSR1})
bad = []
if outer.poll(0): bad.append("ready too early")
os.write(w, b"x")
if outer.poll(0) != [(r, select.EPOLLIN)]: bad.append("the closed number")
os.read(kept, 1)
os.write(w2, b"x")
if outer.poll(0) != [(inner.fileno(), select.EPOLLIN)]: bad.append("the inner one")
if inner.poll(0) != [(r2, select.EPOLLIN)] or inner.poll(0): bad.append("edges")
os.write(1, b"FAIL " + repr(bad).encode() + b"\n" if bad else b"ok\n")
`

// Programs that people have are restored by CRIU.
func TestDumpOfProgramsIsRestoredByCRIU(t *testing.T) {
	for _, p := range []struct {
		name  string
		needs []testkit.Requirement
		spec  func(t *testing.T) testkit.VictimSpec
	}{
		{"python", []testkit.Requirement{testkit.Program("python3")}, python(pythonHeap)},
		{"another user", []testkit.Requirement{testkit.Program("python3")}, python(pythonUser)},
		{"epoll", []testkit.Requirement{testkit.Program("python3")}, python(pythonEpoll)},
		{"go", []testkit.Requirement{testkit.Program("go")}, func(t *testing.T) testkit.VictimSpec {
			return testkit.VictimSpec{Name: buildGo(t, "collector")}
		}},
		{"memory", []testkit.Requirement{testkit.Program("go")}, func(t *testing.T) testkit.VictimSpec {
			return testkit.VictimSpec{Name: buildGo(t, "memory")}
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
			criuRestore(t, images)
			victim.Restored()
			victim.MustVerify()
		})
	}
}

// python runs a program in Python.
func python(program string) func(*testing.T) testkit.VictimSpec {
	return func(t *testing.T) testkit.VictimSpec {
		path, err := exec.LookPath("python3")
		if err != nil {
			t.Fatal(err)
		}
		return testkit.VictimSpec{Name: path, Args: []string{"-c", program}}
	}
}

// buildGo builds a program of testdata.
func buildGo(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./testdata/"+name)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
	return path
}
