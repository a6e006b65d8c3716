//go:build amd64

package engine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"

	"stasis.example/criu"
	"stasis.example/image"
	"stasis.example/image/entry"
	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

// Every name that the installed CRIU knows is answered, and none that it does not know; the help text lists them.
func TestFeatureNames(t *testing.T) {
	testkit.Need(t, testkit.CRIU)
	help, err := exec.Command(testkit.CRIUPath(t), "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, list, found := strings.Cut(string(help), "only check a particular feature, one of:")
	list, _, found2 := strings.Cut(list, "\n\n")
	names := regexp.MustCompile(`[a-z0-9_-]+`).FindAllString(list, -1)
	if !found || !found2 || len(names) < 40 {
		t.Fatalf("no list of features in the help text: %q", names)
	}
	ours := FeatureNames()
	slices.Sort(names)
	slices.Sort(ours)
	if diff := cmp.Diff(names, ours); diff != "" {
		t.Errorf("(-CRIU's +ours)\n%s", diff)
	}
}

// Where the engine makes use of something, it agrees with CRIU about the kernel.
func TestFeaturesAsCRIU(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU)
	e := New()
	for _, f := range features() {
		answer, ok := e.Feature(f.name)
		if f.name == "" {
			if ok {
				t.Errorf("%s has no name, and is answered all the same", f.what)
			}
			continue
		}
		if f.ask == nil {
			if answer.Has || !answer.Known || answer.Why == "" {
				t.Errorf("%+v of something that the engine does not have", answer)
			}
			continue
		}
		err := exec.Command(testkit.CRIUPath(t), "check", "--feature", f.name).Run()
		if answer.Has != (err == nil) || !answer.Known || answer.Has != (answer.Why == "") {
			t.Errorf("%+v, and CRIU says: %v", answer, err)
		}
	}
	if _, ok := e.Feature("nosuch"); ok {
		t.Error("a feature that there is not is answered")
	}
}

// What is missing is named together with the kernel that has it.
func TestCheckNamesWhatIsMissing(t *testing.T) {
	e := New()
	e.kernel.Step = func(call string) error {
		if call == "kcmp" {
			return unix.ENOSYS
		}
		return nil
	}
	err := e.check()
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "this kernel lacks kcmp, which Linux 3.5 has where it is built with CONFIG_KCMP") {
		t.Errorf("without kcmp: %v", err)
	}
	e = New()
	e.kernel.Step = func(call string) error {
		if strings.HasPrefix(call, "ioctl(PAGEMAP_SCAN)") {
			return unix.ENOTTY
		}
		return nil
	}
	if err := e.check(); err != nil && strings.Contains(err.Error(), "PAGEMAP_SCAN") {
		t.Errorf("what can be done without is demanded: %v", err)
	}
	if a, _ := e.Feature("pagemap_scan"); a.Has || !a.Known || !strings.Contains(a.Why, "Linux 6.7") {
		t.Errorf("%+v", a)
	}
	if lacking := e.Lacking(); !slices.ContainsFunc(lacking, func(l string) bool { return strings.Contains(l, "pages are found by /proc/PID/pagemap") }) {
		t.Errorf("lacking: %q", lacking)
	}
	e.kernel = &linux.Kernel{Step: func(string) error { return unix.EIO }}
	if a, _ := e.Feature("pagemap_scan"); a.Has || a.Known || a.Why == "" {
		t.Errorf("of a probe that fails: %+v", a)
	}
}

func TestFeatureRequest(t *testing.T) {
	f, err := criu.New(New()).Features(t.Context())
	if err != nil || f != (criu.Features{}) {
		t.Errorf("%+v, %v", f, err)
	}
}

// cpuinfo.img is the same as CRIU's, CRIU accepts ours, and we accept CRIU's.
func TestCPUInfo(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU)
	ours, theirs := t.TempDir(), t.TempDir()
	client, program := criu.New(New()), testkit.CRIUPath(t)
	if err := client.CPUInfoDump(t.Context(), criu.CPUInfoOptions{ImagesDir: ours}); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, "cpuinfo", "dump", "-D", theirs).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	read := func(dir string) (info entry.CPUInfo) {
		d, err := image.OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := image.ReadOne(d, image.CPUInfo, 0, &info); err != nil {
			t.Fatal(err)
		}
		return info
	}
	if diff := cmp.Diff(read(theirs), read(ours)); diff != "" {
		t.Errorf("(-CRIU's +ours)\n%s", diff)
	}
	for _, caps := range []string{"--cpu-cap", "--cpu-cap=cpu", "--cpu-cap=ins", "--cpu-cap=fpu"} {
		if out, err := exec.Command(program, "cpuinfo", "check", "-D", ours, caps).CombinedOutput(); err != nil {
			t.Errorf("%s: CRIU does not accept our image: %v\n%s", caps, err, out)
		}
	}
	for _, caps := range []uint32{capDefault, capCPU, capIns, capFPU} {
		if err := client.CPUInfoCheck(t.Context(), criu.CPUInfoOptions{ImagesDir: theirs, CPUCap: criu.CPUCap(caps)}); err != nil {
			t.Errorf("caps %d: CRIU's image: %v", caps, err)
		}
	}
}

// Images of another CPU are told from those of this one, as CRIU does.
func TestCPUInfoOfAnotherCPU(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU)
	for _, test := range []struct {
		name   string
		change func(*entry.CPUInfoX86)
		caps   uint32
		fine   bool
	}{
		{"another model", func(c *entry.CPUInfoX86) { c.Model++; c.VendorID = 1; c.ModelID = new("x") }, capDefault, true},
		{"more instructions", func(c *entry.CPUInfoX86) { c.Capability[word80000001EDX] = 0xffffffff }, capDefault, false},
		{"fewer instructions", func(c *entry.CPUInfoX86) { c.Capability[word7EBX] = 0 }, capDefault, true},
		{"fewer instructions, compared one for one", func(c *entry.CPUInfoX86) { c.Capability[word7EBX] = 0 }, capCPU, false},
		{"more of the system's", func(c *entry.CPUInfoX86) { c.Capability[word80000008EBX] = 0xffffffff }, capDefault, true},
		{"more registers", func(c *entry.CPUInfoX86) { *c.XfeaturesMask |= 1 << 9 }, capDefault, false},
		{"larger registers", func(c *entry.CPUInfoX86) { *c.XsaveSize += 64 }, capDefault, false},
		{"more of larger registers", func(c *entry.CPUInfoX86) { *c.XsaveSizeMax += 64 }, capDefault, false},
		{"nothing of the registers", func(c *entry.CPUInfoX86) { c.XfeaturesMask, c.XsaveSize, c.XsaveSizeMax = nil, nil, nil }, capDefault, true},
		{"the first version", func(c *entry.CPUInfoX86) { c.CapabilityVer, c.Capability = 1, c.Capability[:wordsV1] }, capDefault, true},
		{"an unknown version", func(c *entry.CPUInfoX86) { c.CapabilityVer = 3 }, capDefault, false},
		{"a word too few", func(c *entry.CPUInfoX86) { c.Capability = c.Capability[:18] }, capDefault, false},
	} {
		dir := t.TempDir()
		d, err := image.OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		cpu := thisCPU()
		test.change(cpu)
		err = image.WriteAll(d, image.CPUInfo, 0, &entry.CPUInfo{X86Entry: []entry.CPUInfoX86{*cpu}})
		if err = errors.Join(err, d.Close()); err != nil {
			t.Fatal(err)
		}
		err = criu.New(New()).CPUInfoCheck(t.Context(), criu.CPUInfoOptions{ImagesDir: dir, CPUCap: criu.CPUCap(test.caps)})
		if (err == nil) != test.fine {
			t.Errorf("%s: %v", test.name, err)
		}
		words := map[uint32]string{capDefault: "fpu,ins,^cpu", capCPU: "all"}[test.caps]
		if theirs := exec.Command(testkit.CRIUPath(t), "cpuinfo", "check", "-D", dir, "--cpu-cap="+words).Run(); (theirs == nil) != test.fine {
			t.Errorf("%s: CRIU says %v", test.name, theirs)
		}
	}
	err := criu.New(New()).CPUInfoCheck(t.Context(), criu.CPUInfoOptions{ImagesDir: t.TempDir()})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "cpuinfo.img") {
		t.Errorf("without an image: %v", err)
	}
	if _, err := os.Stat(filepath.Join(t.TempDir(), "cpuinfo.img")); err == nil {
		t.Error("a check has written something")
	}
}
