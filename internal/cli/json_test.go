package cli

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
)

// TestJSONAsPackageJSON: what is written is what package json writes, of everything that answers have, and of all answers.
func TestJSONAsPackageJSON(t *testing.T) {
	type inner struct {
		Number int    `json:"number,omitempty"`
		Text   string `json:"text"`
	}
	type all struct {
		Text    string            `json:"text"`
		Yes     bool              `json:"yes"`
		Int     int               `json:"int"`
		Long    int64             `json:"long"`
		Size    uint64            `json:"size,omitempty"`
		Seconds float64           `json:"seconds,omitempty"`
		Inner   inner             `json:"inner,omitempty"`
		Pointer *inner            `json:"pointer,omitempty"`
		Null    *inner            `json:"null"`
		List    []string          `json:"list,omitempty"`
		Full    []string          `json:"full"`
		Flags   map[string]bool   `json:"flags"`
		Why     map[string]string `json:"why,omitempty"`
	}
	ascii := new(strings.Builder)
	for c := range rune(0x100) {
		ascii.WriteRune(c)
	}
	values := []any{
		all{},
		all{
			Text: "a \"quoted\" \\ <b>&\x00\x1f\x7f\u2028\u2029\ufffd é 世 \U0001f600", Yes: true, Int: -1, Long: math.MinInt64, Size: math.MaxUint64,
			Pointer: &inner{}, List: []string{}, Full: []string{"", "b"}, Flags: map[string]bool{"z": true, "a": false, "": true}, Why: map[string]string{},
		},
		&all{Text: "not \xff UTF-8 \xed\xa0\x80 \xc3", Inner: inner{7, ascii.String()}, Pointer: &inner{1, "x"}, List: []string{"a"}, Flags: map[string]bool{}, Why: map[string]string{"b": "2", "a\n": "1"}},
		failure{}, restoreAnswer{}, planAnswer{}, checkAnswer{}, checkAnswer{Features: &features{}}, featureAnswer{}, pageServerAnswer{}, versionAnswer{}, dumpAnswer{}, dumpAnswer{Stats: &dumpStats{}},
	}
	for _, f := range []float64{0, 1, -1, 0.1, 1.5e-6, 9.99e-7, 1e-7, -1.25e-9, 1e-10, 1e-100, 123456789.123, 1e20, 1e21, 1.5e22, 1e100, math.MaxFloat64, math.SmallestNonzeroFloat64, math.Copysign(0, -1)} {
		values = append(values, all{Seconds: f})
	}
	for _, v := range values {
		var got, want bytes.Buffer
		if err := writeJSON(&got, v); err != nil {
			t.Fatal(err)
		}
		e := json.NewEncoder(&want)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		if got.String() != want.String() {
			t.Errorf("%+v:\n%s, want\n%s", v, &got, &want)
		}
	}
}
