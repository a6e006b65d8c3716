package server

import (
	"reflect"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/rpctable"
	"stasis.example/internal/testkit"
)

// withDefaults are options of which each has the value that its absence means. Descriptors are left out, since 0 is one.
func withDefaults(t *testing.T, images int32) *rpc.Opts {
	t.Helper()
	o := &rpc.Opts{ImagesDirFD: images}
	fields := reflect.ValueOf(o).Elem()
	for i, row := range rpctable.Options() {
		field := fields.Field(i)
		if field.Kind() != reflect.Pointer || row.Kind == rpctable.Message || slices.Contains([]string{"work_dir_fd", "status_fd", "pidfd_store_sk"}, row.Name) {
			continue
		}
		field.Set(reflect.New(field.Type().Elem()))
		v := field.Elem()
		switch {
		case row.Default == "":
		case row.Kind == rpctable.Enum:
			v.SetInt(int64(enumValue(t, row.Of, row.Default)))
		case row.Kind == rpctable.Int32:
			n, err := strconv.ParseInt(row.Default, 0, 32)
			if err != nil {
				t.Fatal(row.Name, err)
			}
			v.SetInt(n)
		case row.Kind == rpctable.Uint32:
			n, err := strconv.ParseUint(row.Default, 0, 32)
			if err != nil {
				t.Fatal(row.Name, err)
			}
			v.SetUint(n)
		default:
			t.Fatalf("%s has the default %s", row.Name, row.Default)
		}
	}
	return o
}

func enumValue(t *testing.T, enum, name string) int32 {
	t.Helper()
	for _, e := range rpctable.Enums() {
		for _, v := range e.Values {
			if e.Name == enum && v.Name == name {
				return v.Num
			}
		}
	}
	t.Fatalf("%s has no %s", enum, name)
	return 0
}

// A request with every option in it, each as its absence means it, is as good as one without them: of a dump, and of a restore.
func TestOptionsWithTheirDefaults(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	s := startServer(t, builtin, "")
	for name, transport := range map[string]criu.Transport{"service": &criu.Service{Path: s.socket}, "swrk": swrkOf(builtin)} {
		t.Run(name, func(t *testing.T) {
			v, dir := testkit.StartVictim(t, "counter"), openDir(t, t.TempDir())
			opts := withDefaults(t, int32(dir.Fd()))
			opts.PID = new(int32(v.Pid))
			if resp := askOnce(t, transport, &rpc.Req{Type: rpc.ReqDump, Opts: opts}); !resp.Success {
				t.Fatalf("%+v, %s", resp, text(resp))
			}
			if _, err := v.Wait(); err != nil {
				t.Fatal(err)
			}
			opts = withDefaults(t, int32(dir.Fd()))
			if resp := askOnce(t, transport, &rpc.Req{Type: rpc.ReqRestore, Opts: opts}); !resp.Success {
				t.Fatalf("%+v, %s", resp, text(resp))
			}
			v.Restored()
			v.MustVerify()
		})
	}
	t.Run("user", func(t *testing.T) {
		v := victimOf(t, mallory)
		defaults := withDefaults(t, 0)
		opts := map[string]any{}
		fields := reflect.ValueOf(defaults).Elem()
		for i := range fields.NumField() {
			if f := fields.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
				opts[fields.Type().Field(i).Name] = f.Interface()
			}
		}
		opts["PID"], opts["LeaveRunning"] = v.Pid, true
		resp := s.mustAsk(attack{Type: rpc.ReqDump, Images: testkit.UserDir(t, mallory), Opts: opts}, mallory)
		if !resp.Success {
			t.Errorf("%+v, %s", resp, text(resp))
		}
		v.MustVerify()
	})
}

// Fields that are deprecated say nothing about a tree without namespaces of its own; of a field that comes twice the last counts, as
// protobuf has it.
func TestDeprecatedAndDuplicateFields(t *testing.T) { eachEngine(t, deprecatedAndDuplicateFields) }

func deprecatedAndDuplicateFields(t *testing.T, transport string) {
	testkit.Need(t, testkit.VictimProgram("counter"))
	s := startServer(t, transport, "")
	v, dir := testkit.StartVictim(t, "counter"), openDir(t, t.TempDir())
	opts := &rpc.Opts{ImagesDirFD: int32(dir.Fd()), PID: new(int32(v.Pid)), LeaveRunning: new(true), ManageCgroups: new(true), LogFile: new("dump.log"),
		ExtMnt: []*rpc.ExtMountMap{{Key: "/nowhere", Val: "key"}, {Key: "/nowhere", Val: "key"}}, Veths: []*rpc.VethPair{{IfIn: "eth0", IfOut: "veth0"}}}
	// What comes first is of no account: the wrong type and directory, and a process that there is not.
	wrong := (&rpc.Opts{ImagesDirFD: 900, PID: new(int32(4194303)), LeaveRunning: new(false)}).Append(nil)
	const typeField, optsField = 1, 2
	request := protowire.AppendVarint(protowire.AppendTag(nil, typeField, protowire.VarintType), uint64(rpc.ReqRestore))
	for _, o := range [][]byte{wrong, opts.Append(nil)} {
		request = protowire.AppendBytes(protowire.AppendTag(request, optsField, protowire.BytesType), o)
	}
	request = protowire.AppendVarint(protowire.AppendTag(request, typeField, protowire.VarintType), uint64(rpc.ReqDump))
	fd := dial(t, s)
	defer unix.Close(fd)
	send(t, fd, request)
	resp, err := answer(t, fd)
	if err != nil || resp.Type != rpc.ReqDump || !resp.Success {
		t.Fatalf("%+v, %v, %s", resp, err, text(resp))
	}
	v.MustVerify()
}
