package criu_test

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	criurpc "github.com/checkpoint-restore/go-criu/v8/rpc"
	"google.golang.org/protobuf/encoding/protowire"

	"stasis.example/criu"
	"stasis.example/criu/criutest"
	"stasis.example/internal/rpctable"
	"stasis.example/internal/testkit"
)

// protoField is a field of a message in a .proto file.
type protoField struct {
	label, kind, def string
	number           int32
}

// protoFile is what a .proto file declares: fields and enum values by message and name.
type protoFile struct {
	messages map[string]map[string]protoField
	enums    map[string]map[string]int32
}

var (
	protoComment = regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*`)
	protoBlock   = regexp.MustCompile(`(message|enum)\s+(\w+)\s*\{([^}]*)\}`)
	protoLine    = regexp.MustCompile(`(required|optional|repeated)\s+(\w+)\s+(\w+)\s*=\s*(\d+)\s*(?:\[\s*default\s*=\s*([^\]\s]+)\s*\])?\s*;`)
	protoValue   = regexp.MustCompile(`(\w+)\s*=\s*(\d+)\s*;`)
)

func parseProto(text string) protoFile {
	f := protoFile{map[string]map[string]protoField{}, map[string]map[string]int32{}}
	for _, block := range protoBlock.FindAllStringSubmatch(protoComment.ReplaceAllString(text, ""), -1) {
		if block[1] == "enum" {
			f.enums[block[2]] = map[string]int32{}
			for _, v := range protoValue.FindAllStringSubmatch(block[3], -1) {
				n, _ := strconv.Atoi(v[2])
				f.enums[block[2]][v[1]] = int32(n)
			}
			continue
		}
		f.messages[block[2]] = map[string]protoField{}
		for _, v := range protoLine.FindAllStringSubmatch(block[3], -1) {
			n, _ := strconv.Atoi(v[4])
			f.messages[block[2]][v[3]] = protoField{v[1], v[2], v[5], int32(n)}
		}
	}
	return f
}

// TestTableAgainstDebian holds the table against the rpc.proto of every libcriu-dev that is at hand: that of the CRIU
// the tests use, and any other that tools/get-criu was asked for.
func TestTableAgainstDebian(t *testing.T) {
	paths := []string{testkit.ToolPath(t, "criu", "include", "criu", "rpc.proto")}
	more, _ := filepath.Glob(filepath.Join(testkit.SourceRoot(), ".tools", "criu-*", "include", "criu", "rpc.proto"))
	for _, path := range append(paths, more...) {
		t.Run(filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(path)))), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			compareProto(t, parseProto(string(text)))
		})
	}
}

func compareProto(t *testing.T, f protoFile) {
	if len(f.messages["criu_opts"]) < 60 {
		t.Fatalf("only %d fields of criu_opts were found", len(f.messages["criu_opts"]))
	}
	// A file that has the newest field has all.
	_, newest := f.messages["criu_opts"]["stream"]
	labels := map[rpctable.Card]string{rpctable.Optional: "optional", rpctable.Required: "required", rpctable.Repeated: "repeated"}
	kinds := map[rpctable.Kind]string{rpctable.Bool: "bool", rpctable.Int32: "int32", rpctable.Uint32: "uint32", rpctable.String: "string"}
	for _, m := range rpctable.Messages() {
		theirs := f.messages[m.Name]
		for _, row := range m.Fields {
			kind := kinds[row.Kind]
			if kind == "" {
				kind = row.Of
			}
			got, ok := theirs[row.Name]
			delete(theirs, row.Name)
			switch want := (protoField{labels[row.Card], kind, row.Default, row.Num}); {
			case !ok && !newest && row.Since == "4.3":
			case !ok:
				t.Errorf("%s.%s is not in the file", m.Name, row.Name)
			case got != want:
				t.Errorf("%s.%s: %+v in the table, %+v in the file", m.Name, row.Name, want, got)
			case row.Since == "4.3" && !newest:
				t.Errorf("%s.%s is in a file that lacks other fields of 4.3", m.Name, row.Name)
			}
		}
		for name, field := range theirs {
			t.Errorf("the table lacks %s.%s: %+v", m.Name, name, field)
		}
		delete(f.messages, m.Name)
	}
	for name := range f.messages {
		t.Errorf("the table lacks the message %s", name)
	}
	for _, e := range rpctable.Enums() {
		theirs, ok := f.enums[e.Name]
		if !ok && newest {
			t.Errorf("the file lacks the enum %s", e.Name)
		}
		for _, v := range e.Values {
			if n, has := theirs[v.Name]; ok && (!has || n != v.Num) {
				t.Errorf("%s.%s is %d in the table, %d in the file (there: %v)", e.Name, v.Name, v.Num, n, has)
			}
			delete(theirs, v.Name)
		}
		for name := range theirs {
			t.Errorf("the table lacks %s.%s", e.Name, name)
		}
		delete(f.enums, e.Name)
	}
	for name := range f.enums {
		t.Errorf("the table lacks the enum %s", name)
	}
}

// optionStructs are the structs of options by operation.
func optionStructs() map[rpctable.Op]reflect.Type {
	return map[rpctable.Op]reflect.Type{
		rpctable.Check:      reflect.TypeFor[criu.CheckOptions](),
		rpctable.Dump:       reflect.TypeFor[criu.DumpOptions](),
		rpctable.PreDump:    reflect.TypeFor[criu.PreDumpOptions](),
		rpctable.Restore:    reflect.TypeFor[criu.RestoreOptions](),
		rpctable.PageServer: reflect.TypeFor[criu.PageServerOptions](),
		rpctable.CPUInfo:    reflect.TypeFor[criu.CPUInfoOptions](),
	}
}

// TestTableIsWhole: every option has a number, somebody who may set it, and a place in the options of its operations or
// a reason why not.
func TestTableIsWhole(t *testing.T) {
	next := int32(1)
	unique := map[string]string{}
	once := func(kind, name, row string) {
		if name == "" {
			return
		}
		if other, taken := unique[kind+name]; taken {
			t.Errorf("%s and %s have the same %s %q", row, other, kind, name)
		}
		unique[kind+name] = row
	}
	mapped := map[rpctable.Op]map[string]bool{}
	for op := range optionStructs() {
		mapped[op] = map[string]bool{}
	}
	for _, row := range rpctable.Options() {
		if next == 40 { // never used in a release
			next++
		}
		if row.Num != next {
			t.Errorf("%s has the number %d, want %d", row.Name, row.Num, next)
		}
		next++
		if row.Option == nil {
			t.Errorf("%s has no option", row.Name)
			continue
		}
		once("name", row.Name, row.Name)
		once("Go name", row.Go, row.Name)
		once("C name", row.C, row.Name)
		once("flag", row.Flag, row.Name)
		once("short flag", row.Short, row.Name)
		if row.Who < rpctable.Anyone || row.Who > rpctable.Direct {
			t.Errorf("%s does not say who may set it", row.Name)
		}
		if row.Why == "" && (row.Who != rpctable.Anyone || row.Shape == rpctable.Implicit) {
			t.Errorf("%s lacks a reason", row.Name)
		}
		if row.Ops == 0 || row.Help == "" || row.Since == "" {
			t.Errorf("%s lacks an operation, a help or a release", row.Name)
		}
		if row.Shape == rpctable.Implicit {
			if row.Go != "" {
				t.Errorf("%s is set by the client and has the name %s", row.Name, row.Go)
			}
			continue
		}
		for op, options := range optionStructs() {
			_, has := options.FieldByName(row.Go)
			if has != row.Ops.Has(op) {
				t.Errorf("%s: %s has a field %s: %v", row.Name, options, row.Go, has)
			}
			mapped[op][row.Go] = true
			if row.Shape == rpctable.DirFD {
				mapped[op][row.Go+"File"] = true
			}
		}
	}
	for op, options := range optionStructs() {
		for i := range options.NumField() {
			if name := options.Field(i).Name; !mapped[op][name] && name != "Notify" && name != "Raw" {
				t.Errorf("%s has a field %s that is not in the table", options, name)
			}
		}
	}
}

// optionSample is a value for an option, and what go-criu's message must hold then, as its text shows it.
func optionSample(t *testing.T, row rpctable.Field, file *os.File) (value any, want []string) {
	switch row.Shape {
	case rpctable.DirFD:
		return file.Name(), nil // compared by number, elsewhere
	case rpctable.PeerFD:
		return file, []string{strconv.Itoa(int(file.Fd()))}
	case rpctable.Duration:
		return 1500 * time.Millisecond, []string{"2"}
	case rpctable.Bytes:
		return int64(1 << 20), []string{"1048576"}
	case rpctable.CPUCap:
		return criu.CPUCapIns, []string{"4"}
	case rpctable.LogLevel:
		return criu.LogNone, []string{"0"}
	case rpctable.Namespace:
		return criu.NamespaceNet, []string{strconv.Itoa(0x40000000)}
	case rpctable.Word:
		for _, e := range rpctable.Enums() {
			if e.Name == row.Of {
				last := e.Values[len(e.Values)-1]
				for _, v := range e.Values {
					if v.Word != "" {
						last = v
					}
				}
				return last.Word, []string{last.Name}
			}
		}
	case rpctable.Struct:
		return &criu.PageServerAddr{Address: "host", Port: 4711}, []string{"host", "4711"}
	case rpctable.Keyed:
		switch row.Name {
		case "veths":
			return []criu.Veth{{Inside: "eth0", Outside: "out0"}}, []string{"eth0", "out0"}
		case "ext_mnt":
			return []criu.ExtMount{{Key: "/mnt", Value: "name"}}, []string{"/mnt", "name"}
		case "cg_root":
			return []criu.CgroupRoot{{Controller: "cpu", Path: "/root"}}, []string{"cpu", "/root"}
		case "inherit_fd":
			return []criu.InheritFile{{Key: "pipe:[1]", File: file}}, []string{"pipe:[1]"}
		case "unix_sk_ino":
			return []uint32{4242}, []string{"4242"}
		case "join_ns":
			return []criu.JoinNamespace{{Kind: "net", Target: "17", Extra: "1,2"}}, []string{"net", "17", "1,2"}
		}
	case rpctable.Plain:
		switch row.Kind {
		case rpctable.Bool:
			return true, []string{"true"}
		case rpctable.Int32, rpctable.Uint32:
			return 321, []string{"321"}
		case rpctable.String:
			if row.Card == rpctable.Repeated {
				return []string{"one", "two"}, []string{"one", "two"}
			}
			return "some-text", []string{"some-text"}
		}
	}
	t.Fatalf("the test has no sample for %s", row.Name)
	return nil, nil
}

// TestOptionsOnTheWire sets each option of each operation by itself, performs the operation, and reads the request with
// go-criu: the option's field is there with its value, and nothing else that was not asked for.
func TestOptionsOnTheWire(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for op, options := range optionStructs() {
		for _, row := range rpctable.Options() {
			if row.Go == "" || !row.Ops.Has(op) {
				continue
			}
			t.Run(options.Name()+"."+row.Go, func(t *testing.T) {
				value, want := optionSample(t, row, dir)
				o := reflect.New(options)
				needed := map[string]bool{"images_dir_fd": true} // a required field
				if row.Name != "images_dir_fd" && row.Name != "images_dir" {
					o.Elem().FieldByName("ImagesDirFile").Set(reflect.ValueOf(dir))
				}
				if f := o.Elem().FieldByName("PID"); f.IsValid() {
					f.SetInt(1234)
					needed["pid"] = true
				}
				switch {
				case row.Name == "lazy_pages" && op == rpctable.Dump: // wants an address
					o.Elem().FieldByName("PageServer").Set(reflect.ValueOf(&criu.PageServerAddr{Port: 1}))
					needed["ps"] = true
				case op == rpctable.PageServer: // asks for a port of its own choice
					needed["ps"] = true
				case row.Name == "unix_sk_ino":
					needed["ext_unix_sk"] = true // without which CRIU does not read the list
				}
				field := o.Elem().FieldByName(row.Go)
				field.Set(reflect.ValueOf(value).Convert(field.Type()))
				peer := criutest.NewPeer(t)
				var transport criu.Transport = peer.Transport()
				if row.Shape == rpctable.Keyed && row.Name == "inherit_fd" {
					transport = peer.Swrk()
				}
				perform(t, criu.New(transport), o.Interface())
				checkRequest(t, peer, row, needed, want)
			})
		}
	}
}

// perform performs the operation that the options belong to.
func perform(t *testing.T, c *criu.Client, options any) {
	t.Helper()
	ctx := context.Background() // one that cannot end, so that no notifications are asked for
	var err error
	switch o := options.(type) {
	case *criu.CheckOptions:
		err = c.Check(ctx, *o)
	case *criu.DumpOptions:
		_, err = c.Dump(ctx, *o)
	case *criu.PreDumpOptions:
		err = c.PreDump(ctx, *o)
	case *criu.RestoreOptions:
		_, err = c.Restore(ctx, *o)
	case *criu.PageServerOptions:
		_, err = c.PageServer(ctx, *o)
	case *criu.CPUInfoOptions:
		err = c.CPUInfoDump(ctx, *o)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// checkRequest checks that a request holds the row's field and those that were needed, and no other.
func checkRequest(t *testing.T, peer *criutest.Peer, row rpctable.Field, needed map[string]bool, want []string) {
	t.Helper()
	packet := peer.Requests()[0].Opts.Append(nil)
	sent := map[protowire.Number]bool{}
	for rest := packet; len(rest) > 0; {
		number, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		sent[number], rest = true, rest[n:]
	}
	for _, other := range rpctable.Options() {
		if expected := needed[other.Name] || other.Name == row.Name; sent[protowire.Number(other.Num)] != expected {
			t.Errorf("%s was sent: %v, want %v", other.Name, !expected, expected)
		}
	}
	if newerThanGoCRIU(row) { // go-criu keeps it without understanding it
		return
	}
	theirs := new(criurpc.CriuOpts)
	if err := theirs.UnmarshalVT(packet); err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if !strings.Contains(theirs.String(), w) {
			t.Errorf("the request %s lacks %q", theirs, w)
		}
	}
}
