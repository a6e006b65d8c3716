//go:build amd64

package engine

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stasis.example/criu/rpc"
	"stasis.example/internal/rpctable"
	"stasis.example/internal/testkit"
)

// Every option of the RPC is in the table, once, and one that is refused can be told.
func TestEveryOptionIsTreated(t *testing.T) {
	var want, got []string
	for _, row := range rpctable.Options() {
		want = append(want, row.Name)
	}
	for _, o := range options() {
		got = append(got, o.name)
		if (o.dump == unable || o.restore == unable) != (o.set != nil) {
			t.Errorf("%s: it is told when it is set only if it is refused", o.name)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-RPC +treated)\n%s", diff)
	}
}

var update = flag.Bool("update", false, "write the pages that are made of tables anew")

// TestOptionsPage: docs/engine-options.md is what the table says. With -update it is written.
func TestOptionsPage(t *testing.T) {
	var b strings.Builder
	b.WriteString(`<!-- Written by go test ./engine -run TestOptionsPage -update, from the table in engine/options.go. Do not edit. -->

# What the built-in engine does with each option

*Refused*: an operation with the option fails, by its name, before anything is done, unless the option asks for nothing (false, 0).
*Nothing to do*: the option allows something that the engine refuses by name wherever a tree has it, says how something is done that
is not done, or has no meaning for the operation. What each option means: [options.md](options.md).

| RPC field | dump | restore |
|---|---|---|
`)
	for _, row := range rpctable.Options() {
		i := slices.IndexFunc(options(), func(o option) bool { return o.name == row.Name })
		if i < 0 {
			t.Fatalf("%s is not in the table", row.Name)
		}
		o := options()[i]
		fmt.Fprintf(&b, "| `%s` | %v | %v |\n", o.name, o.dump, o.restore)
	}
	fmt.Fprintf(&b, "\nOf `external`, the kinds %s are taken, all others refused.\n", strings.Join(externalKinds(), " and "))
	path := filepath.Join(testkit.SourceRoot(), "docs", "engine-options.md")
	if page, err := os.ReadFile(path); err == nil && string(page) == b.String() {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the table says; go test ./engine -run TestOptionsPage -update writes it", path)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// An option that is refused is refused whatever its value, unless that asks for nothing.
func TestOptionsAreRefused(t *testing.T) {
	fields := make(map[string]reflect.StructField)
	for f := range reflect.TypeFor[rpc.Opts]().Fields() {
		fields[strings.ToLower(f.Name)] = f
	}
	for _, o := range options() {
		if o.set == nil {
			continue
		}
		f, ok := fields[strings.ReplaceAll(o.name, "_", "")]
		if !ok {
			t.Errorf("there is no field %s", o.name)
			continue
		}
		opts := new(rpc.Opts)
		v := reflect.ValueOf(opts).Elem().FieldByIndex(f.Index)
		switch f.Type.Kind() {
		case reflect.Slice:
			v.Set(reflect.MakeSlice(f.Type, 1, 1))
		case reflect.Pointer:
			v.Set(reflect.New(f.Type.Elem()))
			switch e := v.Elem(); e.Kind() {
			case reflect.Bool:
				e.SetBool(true)
			case reflect.Int32, reflect.Int64:
				e.SetInt(1)
			case reflect.Uint32:
				e.SetUint(1)
			case reflect.String:
				e.SetString("x")
			}
		}
		for _, restoring := range []bool{false, true} {
			how := o.dump
			if restoring {
				how = o.restore
			}
			err := refuseOptions(opts, restoring)
			if (how == unable) != errors.Is(err, errors.ErrUnsupported) || err != nil && !strings.Contains(err.Error(), " "+o.name+" ") {
				t.Errorf("%s, restoring: %v: %v", o.name, restoring, err)
			}
		}
	}
	no := false
	if err := refuseOptions(&rpc.Opts{TrackMem: &no, LazyPages: &no, EmptyNS: new(uint32(0)), ParentImg: new(""), ImageIOMode: new(rpc.ImageIOModeWriteback)}, false); err != nil {
		t.Errorf("options that ask for nothing: %v", err)
	}
	err := refuseOptions(&rpc.Opts{External: []string{"mnt[/x]:y", "veth[a]:b"}, TLS: new(true)}, false)
	if err == nil || !strings.Contains(err.Error(), "tls, external mnt[/x]:y, external veth[a]:b yet") {
		t.Errorf("all at once: %v", err)
	}
}
