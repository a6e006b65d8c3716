package cli

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"stasis.example/internal/getopt"
	"stasis.example/internal/rpctable"
	"stasis.example/internal/testkit"
)

func TestFlagTable(t *testing.T) {
	fs := newFlagSet()
	for _, f := range fs.flags {
		if f.help == "" || f.set == nil || f.place == 0 {
			t.Errorf("%s: the row is not complete", f.name())
		}
		if (f.value == "") != (f.Arg == getopt.None) {
			t.Errorf("%s: a value is shown and not read, or the other way round", f.name())
		}
		if f.place == byRPC && len(f.fields) == 0 {
			t.Errorf("%s: goes by RPC, but in no field", f.name())
		}
		if f.own != f.Exact {
			t.Errorf("%s: own flags, and they only, are matched exactly", f.name())
		}
		for _, a := range f.actions {
			if _, ok := findAction(a); !ok {
				t.Errorf("%s: there is no action %s", f.name(), a)
			}
		}
	}
	total := 0
	for _, g := range fs.groups() {
		total += len(g.flags)
	}
	if want := len(fs.flags) - len(deprecatedFlags()); total != want {
		t.Errorf("the groups of the help text hold %d flags, want %d", total, want)
	}
}

// TestFlagsAndFields: every option of the RPC has the flag that the table of the RPC names, under the same letter, and
// no flag names a field that is not there.
func TestFlagsAndFields(t *testing.T) {
	fs := newFlagSet()
	known := make(map[string]bool)
	for _, row := range rpctable.Options() {
		known[row.Name] = true
		name, _, _ := strings.Cut(row.Flag, " ")
		if name == "" {
			continue
		}
		f := fs.lookup(name)
		if f == nil {
			t.Errorf("field %s: there is no flag --%s", row.Name, name)
			continue
		}
		if row.Flag == name && !slices.Contains(f.fields, row.Name) {
			t.Errorf("field %s: --%s does not say that it sets it", row.Name, name)
		}
		letter := ""
		if f.Short != 0 {
			letter = string(f.Short)
		}
		if row.Flag == name && letter != row.Short {
			t.Errorf("field %s: --%s has the letter %q, the table says %q", row.Name, name, letter, row.Short)
		}
	}
	for _, f := range fs.flags {
		for _, field := range f.fields {
			if !known[field] {
				t.Errorf("%s: the RPC has no field %s", f.name(), field)
			}
		}
	}
}

// TestHelpOfCRIU: every flag that the installed criu's help text shows is one of ours.
func TestHelpOfCRIU(t *testing.T) {
	help, err := exec.Command(testkit.CRIUPath(t), "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	fs := newFlagSet()
	shown := regexp.MustCompile(`(?m)^ +(?:-([a-zA-Z])(?:\[v\.\.\.\]|NUM)?\|)?--([a-z][-a-z]*)`).FindAllStringSubmatch(string(help), -1)
	if len(shown) < 60 {
		t.Fatalf("only %d flags were found in the help text", len(shown))
	}
	for _, m := range shown {
		f := fs.lookup(m[2])
		if f == nil {
			t.Errorf("criu has --%s", m[2])
			continue
		}
		// The help text has -d for two flags; getopt has letters for itself.
		if m[1] != "" && string(f.Short) != m[1] && f.Long != "daemon" {
			t.Errorf("criu has -%s for --%s, here it is -%c", m[1], m[2], f.Short)
		}
	}
	for _, a := range regexp.MustCompile(`(?m)^  ([a-z][-a-z]*)  +[a-z]`).FindAllStringSubmatch(string(help), -1) {
		if _, ok := findAction(a[1]); !ok {
			t.Errorf("criu has the action %s", a[1])
		}
	}
}

// TestOptionsOfCRIU reads the option table of getopt_long(3) out of the installed criu and compares names, values and
// negations with ours: what the help text does not show is there too.
func TestOptionsOfCRIU(t *testing.T) {
	theirs, letters, err := criuOptions(testkit.CRIUPath(t))
	if errors.Is(err, errors.ErrUnsupported) {
		t.Logf("not held against the program: %v", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	ours := make(map[string]getopt.Arg)
	for _, f := range newFlagSet().flags {
		if _, there := theirs[f.Long]; f.own || f.Late && !there {
			continue
		}
		ours[f.Long] = f.Arg
		if f.Negatable {
			ours["no-"+f.Long] = getopt.None
		}
		if f.Short != 0 {
			if arg, ok := letters[f.Short]; !ok || arg != f.Arg {
				t.Errorf("-%c: value %d here, in criu %d (%v)", f.Short, f.Arg, arg, ok)
			}
			delete(letters, f.Short)
		}
	}
	for letter := range letters {
		t.Errorf("criu has -%c", letter)
	}
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		if arg, ok := ours[name]; !ok {
			t.Errorf("criu has --%s", name)
		} else if arg != theirs[name] {
			t.Errorf("--%s: value %d here, in criu %d", name, arg, theirs[name])
		}
		delete(ours, name)
	}
	for name := range ours {
		t.Errorf("criu has no --%s", name)
	}
}

// criuOptions finds, in the program's data, the array of struct option that begins with "tree", and the string of
// letters.
func criuOptions(path string) (options map[string]getopt.Arg, letters map[byte]getopt.Arg, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("%s is no ELF file (%w): %w", path, err, errors.ErrUnsupported)
	}
	defer f.Close()
	relative := map[elf.Machine]uint32{elf.EM_X86_64: uint32(elf.R_X86_64_RELATIVE), elf.EM_AARCH64: uint32(elf.R_AARCH64_RELATIVE)}[f.Machine]
	pointers := make(map[uint64]uint64)
	for _, s := range f.Sections {
		if s.Type != elf.SHT_RELA {
			continue
		}
		data, err := s.Data()
		if err != nil {
			return nil, nil, err
		}
		for ; len(data) >= 24; data = data[24:] {
			if binary.LittleEndian.Uint32(data[8:]) == relative {
				pointers[binary.LittleEndian.Uint64(data)] = binary.LittleEndian.Uint64(data[16:])
			}
		}
	}
	at := func(addr uint64, size int) []byte {
		for _, p := range f.Progs {
			if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr+uint64(size) <= p.Vaddr+p.Filesz {
				b := make([]byte, size)
				if _, err := p.ReadAt(b, int64(addr-p.Vaddr)); err == nil {
					return b
				}
			}
		}
		return nil
	}
	text := func(addr uint64) string {
		s, _, _ := strings.Cut(string(at(addr, 64)), "\x00")
		return s
	}
	options = make(map[string]getopt.Arg)
	for begin, name := range pointers {
		if text(name) != "tree" {
			continue
		}
		for e := at(begin, 32); e != nil && pointers[begin] != 0; e = at(begin, 32) {
			options[text(pointers[begin])] = getopt.Arg(binary.LittleEndian.Uint32(e[8:])) // has_arg has our numbers
			begin += 32
		}
		if len(options) > 60 {
			break
		}
		clear(options)
	}
	rodata := f.Section(".rodata")
	if len(options) == 0 || rodata == nil {
		return nil, nil, fmt.Errorf("%s: no option table is found in it: %w", path, errors.ErrUnsupported)
	}
	data, err := rodata.Data()
	if err != nil {
		return nil, nil, err
	}
	m := regexp.MustCompile(`\x00([a-zA-Z:]*t:[a-zA-Z:]*v::[a-zA-Z:]*)\x00`).FindSubmatch(data)
	if m == nil {
		return nil, nil, fmt.Errorf("%s: no letters are found in it: %w", path, errors.ErrUnsupported)
	}
	letters = make(map[byte]getopt.Arg)
	for i := 0; i < len(m[1]); i++ {
		if m[1][i] == ':' {
			continue
		}
		rest := string(m[1][i+1:])
		switch {
		case strings.HasPrefix(rest, "::"):
			letters[m[1][i]] = getopt.Optional
		case strings.HasPrefix(rest, ":"):
			letters[m[1][i]] = getopt.Required
		default:
			letters[m[1][i]] = getopt.None
		}
	}
	return options, letters, nil
}
