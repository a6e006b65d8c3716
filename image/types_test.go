package image

import (
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/magic"
)

func TestMagicsAreCRIUs(t *testing.T) {
	want := magic.LoadMagic().ByName
	if want["IMG_COMMON"] != magicCommon || want["IMG_SERVICE"] != magicService {
		t.Errorf("common %#x, service %#x", want["IMG_COMMON"], want["IMG_SERVICE"])
	}
	for typ := Inventory; typ < endOfTypes; typ++ {
		info := types[typ]
		if info.before == "" {
			t.Errorf("type %d has no row", typ)
			continue
		}
		if info.framing == raw {
			continue
		}
		if uint64(info.magic) != want[info.name] {
			t.Errorf("%v: magic %#x, CRIU has %#x", typ, info.magic, want[info.name])
		}
	}
}

func TestFileNames(t *testing.T) {
	for _, c := range []struct {
		typ  Type
		id   uint64
		want string
	}{
		{Inventory, 0, "inventory.img"}, {Core, 7, "core-7.img"}, {GhostFile, 0x1f, "ghost-file-1f.img"},
		{Pagemap, 7, "pagemap-7.img"}, {PagemapShmem, 1 << 40, "pagemap-shmem-1099511627776.img"}, {StatsDump, 0, "stats-dump"},
		{Pages, 1, "pages-1.img"},
	} {
		if got := c.typ.File(c.id); got != c.want {
			t.Errorf("%v.File(%d) = %q, want %q", c.typ, c.id, got, c.want)
		}
	}
	for typ := Inventory; typ < endOfTypes; typ++ {
		id := uint64(0)
		if types[typ].verb != 0 {
			id = 171
		}
		if got, gotID, ok := ParseFile(typ.File(id)); got != typ || gotID != id || !ok {
			t.Errorf("ParseFile(%q) = %v, %d, %v", typ.File(id), got, gotID, ok)
		}
	}
	for _, name := range []string{"", "dump.log", "core-.img", "core-07.img", "core--1.img", "core-7.img~", "core-1f.img", "ghost-file-1F.img", "core-99999999999999999999.img", "parent"} {
		if typ, id, ok := ParseFile(name); ok {
			t.Errorf("ParseFile(%q) = %v, %d", name, typ, id)
		}
	}
}
