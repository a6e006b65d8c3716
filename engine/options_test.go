//go:build amd64

package engine

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stasis.example/criu/rpc"
	"stasis.example/internal/rpctable"
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
	if err := refuseOptions(&rpc.Opts{TrackMem: &no, LazyPages: &no, EmptyNS: new(uint32(0)), ImageIOMode: new(rpc.ImageIOModeWriteback)}, false); err != nil {
		t.Errorf("options that ask for nothing: %v", err)
	}
	err := refuseOptions(&rpc.Opts{External: []string{"mnt[/x]:y", "veth[a]:b"}, TLS: new(true)}, false)
	if err == nil || !strings.Contains(err.Error(), "tls, external mnt[/x]:y, external veth[a]:b yet") {
		t.Errorf("all at once: %v", err)
	}
}
