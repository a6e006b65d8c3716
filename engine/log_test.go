//go:build amd64

package engine

import (
	"bytes"
	"regexp"
	"testing"
	"time"
)

// Lines have CRIU's form: a time from level 3 upwards, and what goes wrong with its place.
func TestLogLines(t *testing.T) {
	for _, test := range []struct {
		level int
		want  string
	}{
		{0, `^$`},
		{1, `^Error \(dump\): a 1\nError \(dump\): b\n$`},
		{2, `^Error \(dump\): a 1\nError \(dump\): b\nWarn  \(dump\): w\n$`},
		{3, `^\(\d\d\.\d{6}\) Error \(dump\): a 1\n\(\d\d\.\d{6}\) Error \(dump\): b\n\(\d\d\.\d{6}\) Warn  \(dump\): w\n\(\d\d\.\d{6}\) i\n\(\d\d\.\d{6}\) Version: 4\.\d+\.\d+ \(stasis.*\)\n\(\d\d\.\d{6}\) Running on .* Linux .*\n$`},
	} {
		var b bytes.Buffer
		l := &logger{to: &b, level: test.level, start: time.Now()}
		l.add(logError, "dump", "a %d\nb", 1)
		l.add(logWarn, "dump", "w")
		l.info("i")
		l.begin(New().version())
		if !regexp.MustCompile(test.want).MatchString(b.String()) {
			t.Errorf("level %d:\n%s", test.level, b.String())
		}
		if l.first != "a 1" {
			t.Errorf("level %d: the first error is %q", test.level, l.first)
		}
	}
}
