package cli

import (
	"strings"
	"testing"

	"stasis.example/criu/rpc"
)

func TestParsePID(t *testing.T) {
	for text, want := range map[string]int32{"1": 1, "42": 42, "2147483647": 2147483647} {
		if got, err := parsePID(text); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "abc", "12abc", "2147483648", "1 "} {
		if got, err := parsePID(text); err == nil {
			t.Errorf("%q is taken for the pid %d", text, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]uint32{"0": 0, "1": 1, "512K": 512 << 10, "16M": 16 << 20, "3G": 3 << 30} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "K", "1k", "4G", "-1", "1KB", "M1", "99999999999"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is taken for %d bytes", text, got)
		}
	}
}

func TestParseVerbosity(t *testing.T) {
	for _, test := range []struct {
		value string
		has   bool
		want  int
	}{
		{"", false, 3}, {"4", true, 4}, {"0", true, 0}, {"v", true, 4}, {"vvv", true, 6}, {"erbosity=0", true, 0}, {"4x", true, 4}, {"", true, 0},
		{"99999999999999999999", true, 0},
	} {
		if got := parseVerbosity(2, test.value, test.has); got != test.want {
			t.Errorf("%q (%v) is level %d, want %d", test.value, test.has, got, test.want)
		}
	}
}

func TestParseCPUCap(t *testing.T) {
	for text, want := range map[string]uint32{
		"none":        0,
		"^none":       capAll | capImage,
		"all":         capAll | capImage,
		"cpu":         capDefault | capCPU | capImage,
		"^ins":        capFPU | capImage,
		"none,cpu":    capCPU | capImage,
		"all,^cpu":    capDefault | capImage,
		"^fpu,^ins":   0,
		"fpu,ins,cpu": capAll | capImage,
	} {
		if got, err := parseCPUCap(capDefault, text); err != nil || got != want {
			t.Errorf("%q is %#x, %v; want %#x", text, got, err, want)
		}
	}
	for _, text := range []string{"foo", "", "cpu,", "cpu fpu"} {
		if got, err := parseCPUCap(capDefault, text); err == nil {
			t.Errorf("%q is taken for %#x", text, got)
		}
	}
}

func TestParseJoinNS(t *testing.T) {
	j, err := parseJoinNS("user:42,1000,100")
	if err != nil || j.NS != "user" || j.NSFile != "42" || j.ExtraOpt == nil || *j.ExtraOpt != "1000,100" {
		t.Errorf("got %+v, %v", j, err)
	}
	j, err = parseJoinNS("net:/run/netns/a:b")
	if err != nil || j.NS != "net" || j.NSFile != "/run/netns/a:b" || j.ExtraOpt != nil {
		t.Errorf("got %+v, %v", j, err)
	}
	for _, text := range []string{"", "net", "net:", ":1", "pid:1", "net:1,2"} {
		if j, err := parseJoinNS(text); err == nil {
			t.Errorf("%q is taken for %+v", text, j)
		}
	}
}

func TestParseInherit(t *testing.T) {
	if got, err := parseInherit("fd[5]:pipe[123]"); err != nil || got != (inherited{5, "pipe[123]"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, text := range []string{"", "fd[5]", "fd[5]:", "fd[x]:a", "5:a", "fd[-1]:a"} {
		if got, err := parseInherit(text); err == nil {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
}

func TestParseCgroupRoot(t *testing.T) {
	show := func(r *rpc.CgroupRoot) string {
		if r.Ctrl == nil {
			return "|" + r.Path
		}
		return *r.Ctrl + "|" + r.Path
	}
	for text, want := range map[string]string{"/a": "|/a", "cpu:/a": "cpu|/a", ":/a": "|/a", "cpu,cpuacct:/a": "cpu,cpuacct|/a"} {
		if got, err := parseCgroupRoot(text); err != nil || show(got) != want {
			t.Errorf("%q is %+v, %v; want %s", text, got, err, want)
		}
	}
	if _, err := parseCgroupRoot("cpu:"); err == nil {
		t.Error("a root without a path is taken")
	}
}

func TestTexts(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 200 << 20: "200 MiB", 3 << 40: "3.0 TiB", 5000 << 40: "5000 TiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
	for _, text := range []string{timeText(1500), timeText(1500000), timeText(50000000), timeText(2500000000)} {
		if !strings.Contains(text, " ") {
			t.Errorf("%q has no unit", text)
		}
	}
}
