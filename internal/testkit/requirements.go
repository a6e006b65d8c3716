package testkit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// What tests need. The values are constant.
var (
	// Root is effective uid 0 with the capabilities that CRIU asks for.
	Root = Requirement{Name: "root", Remedy: "run the tests as root", Probe: probeRoot}
	// CRIU is a real CRIU, at CRIUPath.
	CRIU = Requirement{Name: "CRIU", Remedy: "make tools", Probe: func() error { return probeProgram(criuPath()) }}
	// Crun is a real crun, at CrunPath.
	Crun = Requirement{Name: "crun", Remedy: "make tools", Probe: func() error { return probeProgram(toolPath("criu", "bin", "crun")) }}
	// Busybox is a busybox without shared libraries, at BusyboxPath.
	Busybox = Requirement{Name: "busybox", Remedy: "make packages", Probe: func() error { return probeProgram(BusyboxPath) }}
	// Python is Debian's python3, at PythonPath.
	Python = Requirement{Name: "python3", Remedy: "make packages", Probe: func() error { return probeProgram(PythonPath) }}
	// NoRaceDetector is a test program built without the race detector, whose shadow memory no dump should hold.
	NoRaceDetector = Requirement{Name: "a test program without the race detector", Probe: probeNoRace}
	// SoftDirty is a kernel that tells which pages were written since the last time it was asked: memory tracking, and
	// with it iterated pre-dump, rests on it.
	SoftDirty = Requirement{Name: "soft-dirty page tracking", Remedy: "a kernel with CONFIG_MEM_SOFT_DIRTY", Probe: probeSoftDirty}
)

const (
	// BusyboxPath is where Debian's busybox-static has its program.
	BusyboxPath = "/bin/busybox"
	// PythonPath is Debian's python3, a program and no wrapper script.
	PythonPath = "/usr/bin/python3"
)

// VictimProgram is the program test/victims/NAME.
func VictimProgram(name string) Requirement {
	return Requirement{
		Name: "the victim " + name, Remedy: "make victims",
		Probe: func() error { return probeProgram(victimPath(name)) },
	}
}

// VictimPath returns the path of the victim NAME. A test that cannot have it is skipped, as by Need.
func VictimPath(t testing.TB, name string) string {
	t.Helper()
	Need(t, VictimProgram(name))
	return victimPath(name)
}

// Program is a program that is found in PATH.
func Program(name string) Requirement {
	return Requirement{Name: "the program " + name, Remedy: "make packages", Probe: func() error {
		if _, err := exec.LookPath(name); err != nil {
			return Missing("%s is not in PATH", name)
		}
		return nil
	}}
}

// Feature is a feature of the kernel. The probe's three answers are those of Requirement.Probe.
func Feature(name string, probe func() error) Requirement {
	return Requirement{Name: name, Remedy: "another kernel", Probe: probe}
}

// CRIUPath returns the path of the CRIU that tests are to use: STASIS_CRIU, or the one that tools/get-criu has put into
// the checkout. A test that cannot have it is skipped, as by Need.
func CRIUPath(t testing.TB) string {
	t.Helper()
	Need(t, CRIU)
	return criuPath()
}

// CrunPath returns the path of the crun that tests are to use. A test that cannot have it is skipped, as by Need.
func CrunPath(t testing.TB) string {
	t.Helper()
	Need(t, Crun)
	return toolPath("criu", "bin", "crun")
}

// ToolPath returns a path below .tools, where tools/get-criu puts things:
// ToolPath(t, "criu", "share", "rpc.proto"). A test that cannot have it is skipped, as by Need.
func ToolPath(t testing.TB, elem ...string) string {
	t.Helper()
	path := toolPath(elem...)
	Need(t, Requirement{Name: path, Remedy: "make tools, or tools/get-criu SUITE", Probe: func() error {
		_, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			return Missing("it does not exist")
		}
		return err
	}})
	return path
}

func criuPath() string {
	if path := os.Getenv("STASIS_CRIU"); path != "" {
		return path
	}
	return toolPath("criu", "bin", "criu")
}

func toolPath(elem ...string) string {
	return filepath.Join(append([]string{SourceRoot(), ".tools"}, elem...)...)
}

func victimPath(name string) string { return filepath.Join(SourceRoot(), "bin", "victims", name) }

// SourceRoot returns the root of the checkout that the tests run in: STASIS_ROOT, for test programs that were built
// elsewhere, or the directory above the current one that holds this package. It is "." where there is neither.
func SourceRoot() string {
	if root := os.Getenv("STASIS_ROOT"); root != "" {
		return root
	}
	dir, err := os.Getwd()
	if err != nil {
		return "."
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "internal", "testkit", "doc.go")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "."
		}
		dir = parent
	}
}

func probeProgram(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Missing("%s does not exist", path)
	case err != nil:
		return err
	case info.IsDir() || info.Mode()&0o111 == 0:
		return Missing("%s is not a program", path)
	}
	return nil
}

func probeRoot() error {
	if uid := os.Geteuid(); uid != 0 {
		return Missing("running as uid %d", uid)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // two words of 32 capabilities
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	for _, c := range []struct {
		number int
		name   string
	}{
		{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
		{unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE"},
		{unix.CAP_CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE"},
	} {
		if data[c.number/32].Effective&(1<<(c.number%32)) == 0 {
			return Missing("running as root without %s", c.name)
		}
	}
	return nil
}

func probeNoRace() error {
	if RaceDetector {
		return Missing("built with -race")
	}
	return nil
}

// probeSoftDirty writes to a page after the kernel was told to forget, and looks whether it noticed: bit 55 of the
// page's entry in /proc/self/pagemap (Documentation/admin-guide/mm/soft-dirty.rst).
func probeSoftDirty() error {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	defer func() { _ = unix.Munmap(page) }()
	page[0] = 1
	if err := os.WriteFile("/proc/self/clear_refs", []byte("4"), 0); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return Missing("the kernel knows no soft-dirty bit")
		}
		return err
	}
	page[0] = 2
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return err
	}
	defer pagemap.Close()
	var entry [8]byte
	offset := int64(reflect.ValueOf(page).Pointer()) / int64(os.Getpagesize()) * int64(len(entry))
	if _, err := pagemap.ReadAt(entry[:], offset); err != nil {
		return err
	}
	const softDirty = 1 << (55 - 48) // in the seventh byte
	if entry[6]&softDirty == 0 {
		return Missing("the kernel did not notice a write to a page")
	}
	return nil
}
