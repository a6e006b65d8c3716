package entry

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"

	"stasis.example/internal/testkit"
)

// field is a varint field.
func field(num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
}

// message is a length-delimited field.
func message(num protowire.Number, content ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), bytes.Join(content, nil))
}

func TestBadEntries(t *testing.T) {
	fs := bytes.Join([][]byte{field(1, 5), field(2, 6)}, nil) // fs_entry
	fown := bytes.Join([][]byte{field(1, 0), field(2, 0), field(3, 0), field(4, 0), field(5, 0)}, nil)
	deep := message(1, []byte("x")) // cgroup_dir_entry
	for range MaxDepth + 1 {
		deep = append(message(1, []byte("x")), message(2, deep)...)
	}
	for _, c := range []struct {
		name string
		m    Message
		in   []byte
		want string
	}{
		{"required field missing", new(FS), field(1, 5), "fs_entry: required field root_id is missing"},
		{"nothing", new(FS), nil, "fs_entry: required field cwd_id is missing"},
		{"bad tag", new(FS), append(fs, 0x80), "bad tag"},
		{"field 0", new(FS), append(fs, 0, 0), "bad tag"},
		{"field number too big", new(FS), append(fs, 0xf8, 0xff, 0xff, 0xff, 0x1f, 0), "bad tag"},
		{"varint cut off", new(FS), append(fs, 0x18, 0x80), "fs_entry.umask: bad varint"},
		{"varint of 11 bytes", new(FS), append(append(fs, 0x18), bytes.Repeat([]byte{0xff}, 11)...), "fs_entry.umask: bad varint"},
		{"too big for 32 bits", new(FS), append(fs, field(3, 1<<32)...), "fs_entry.umask: 4294967296 does not fit"},
		{"wire type", new(FS), append(fs, message(3, []byte("x"))...), "fs_entry.umask: field 3 has wire type 2, want 0"},
		{"unknown field cut off", new(FS), append(fs, 0xf2, 0x01, 5), "unknown field 30 is cut off"},
		{"group", new(FS), append(fs, 0xf3, 0x01, 0xf4, 0x01), "field 30 is a group"},
		{"int32 too big", new(FileLock), bytes.Join([][]byte{field(1, 0), field(2, 0), field(3, 1<<32)}, nil), "file_lock_entry.pid: 4294967296 does not fit"},
		{"string cut off", new(TaskCore), []byte{0x32, 5, 'x'}, "task_core_entry.comm: cut off"},
		{"fixed64 cut off", new(SkOpts), []byte{0x81, 0x01, 1, 2}, "sk_opts_entry.so_filter: cut off"},
		{"packed field cut off", new(PSTree), append(bytes.Join([][]byte{field(1, 1), field(2, 0), field(3, 1), field(4, 1)}, nil), 0x2a, 1, 0x80), "pstree_entry.threads: bad varint"},
		{"part twice", new(EventFD), bytes.Join([][]byte{field(1, 1), field(2, 0), message(3, fown), message(3, fown), field(4, 0)}, nil), "eventfd_file_entry.fown: occurs twice"},
		{"error inside", new(EventFD), bytes.Join([][]byte{field(1, 1), field(2, 0), message(3, fown[:8]), field(4, 0)}, nil), "eventfd_file_entry.fown: malformed entry: fown_entry: required field pid is missing"},
		{"too deep", new(CgroupDir), deep, "more than 100 messages inside each other"},
	} {
		err := c.m.Decode(c.in)
		if !errors.Is(err, ErrSyntax) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestUnknownFieldsSurvive(t *testing.T) {
	extra := append(field(77, 5), message(78, []byte("what a newer CRIU says"))...)
	in := bytes.Join([][]byte{field(77, 5), field(1, 5), message(78, []byte("what a newer CRIU says")), field(2, 6)}, nil)
	var m FS
	if err := m.Decode(in); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(FS{CwdID: 5, RootID: 6, Unknown: extra}, m); diff != "" {
		t.Error(diff)
	}
	if got, want := m.Append(nil), bytes.Join([][]byte{field(1, 5), field(2, 6), extra}, nil); !bytes.Equal(got, want) {
		t.Errorf("% x, want % x", got, want)
	}
}

// TestDecodeReplaces: what was in the value before is gone, and nothing of the input is kept.
func TestDecodeReplaces(t *testing.T) {
	m := Siginfo{Siginfo: []byte("old"), Unknown: []byte("old")}
	in := (&Siginfo{Siginfo: []byte("new")}).Append(nil)
	if err := m.Decode(in); err != nil {
		t.Fatal(err)
	}
	clear(in)
	if diff := cmp.Diff(Siginfo{Siginfo: []byte("new")}, m); diff != "" {
		t.Error(diff)
	}
}

func TestPacked(t *testing.T) {
	head := bytes.Join([][]byte{field(1, 1), field(2, 0), field(3, 1), field(4, 1)}, nil)
	packed := message(5, protowire.AppendVarint(protowire.AppendVarint(nil, 300), 7))
	for name, in := range map[string][]byte{
		"plain":  bytes.Join([][]byte{head, field(5, 300), field(5, 7)}, nil),
		"packed": append(head, packed...),
		"mixed":  bytes.Join([][]byte{head[:2], field(5, 300), head[2:], message(5, []byte{7}), message(5)}, nil),
	} {
		var m PSTree
		if err := m.Decode(in); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(PSTree{PID: 1, PGID: 1, SID: 1, Threads: []uint32{300, 7}}, m); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestNegative(t *testing.T) {
	want := FileLock{PID: -1, FD: math.MinInt32, Start: -1, Len: math.MinInt64}
	var got FileLock
	if err := got.Decode(want.Append(nil)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// Five bytes for a negative number.
	in := bytes.Join([][]byte{field(1, 0), field(2, 0), field(3, math.MaxUint32), field(4, 1<<31), field(5, math.MaxUint64), field(6, 1<<63)}, nil)
	if err := got.Decode(in); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDefaults(t *testing.T) {
	var reg *RegFile
	if reg.GetMntID() != -1 || reg.GetSize() != 0 || reg.GetExt() {
		t.Error("defaults of a message that is not there")
	}
	if got := new(RegFile).GetMntID(); got != -1 {
		t.Errorf("mnt_id %d", got)
	}
	if got := (&RegFile{MntID: new(int32(4))}).GetMntID(); got != 4 {
		t.Errorf("mnt_id %d", got)
	}
	if got := new(UserX86Regs).GetMode(); got != RegsModeNative {
		t.Errorf("mode %v", got)
	}
	if got := new(PacketSock).GetFanout(); got != math.MaxUint32 {
		t.Errorf("fanout %d", got)
	}
}

func TestEnumString(t *testing.T) {
	if FDTypeEventPoll.String() != "EVENTPOLL" || FDType(99).String() != "99" {
		t.Errorf("%v %v", FDTypeEventPoll, FDType(99))
	}
}

// mm is an address space with n mappings.
func mm(n int) *MM {
	m := &MM{MMSavedAuxv: make([]uint64, 40)}
	for i := range uint64(n) {
		m.VMAs = append(m.VMAs, VMA{Start: 0x7f0000000000 + i<<13, End: 0x7f0000001000 + i<<13, ShmID: i, Prot: 3, Flags: 0x22, Status: 0x201, FD: -1, Madv: new(i), FDFlags: new(uint32(2))})
	}
	return m
}

// TestAllocations guards the cost: Append allocates nothing, Decode what it returns and no more.
func TestAllocations(t *testing.T) {
	testkit.Need(t, testkit.NoRaceDetector) // which allocates on its own account
	m := mm(1000)
	buf := m.Append(nil)
	if n := testing.AllocsPerRun(10, func() { buf = m.Append(buf[:0]) }); n != 0 {
		t.Errorf("Append: %v allocations", n)
	}
	var got MM
	// Two optional fields a mapping, the slice of mappings, the auxv.
	if n := testing.AllocsPerRun(10, func() {
		if err := got.Decode(buf); err != nil {
			t.Fatal(err)
		}
	}); n > 2*1000+2 {
		t.Errorf("Decode: %v allocations", n)
	}
	if cap(got.VMAs) > 1100 {
		t.Errorf("room for %d mappings", cap(got.VMAs))
	}
}

func BenchmarkMM(b *testing.B) {
	m := mm(1000)
	buf := m.Append(nil)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(buf)))
		for range b.N {
			buf = m.Append(buf[:0])
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(buf)))
		var got MM
		for range b.N {
			if err := got.Decode(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}
