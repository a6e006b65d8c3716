package interop

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit"
	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fs"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	pipe_data "github.com/checkpoint-restore/go-criu/v8/crit/images/pipe-data"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"
	remap_file_path "github.com/checkpoint-restore/go-criu/v8/crit/images/remap-file-path"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/seccomp"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timens"
	"google.golang.org/protobuf/proto"

	"stasis.example/internal/testkit"
)

// accepted are the fields in which our images may differ from CRIU's of the same process, and why. What is not here must be the
// same, as crit shows it.
var accepted = []struct{ field, why string }{
	{`.*/fpregs/xsave/xstate_bv`, "CRIU writes 0, and fills it in when it restores"},
	{`.*/fpregs/xsave/cet/.*`, "CRIU writes zeros where there is no shadow stack"},
	{`files\.img/.* directory/reg/flags`, "directories that processes are in have O_DIRECTORY with us, and nothing with CRIU"},
	{`files\.img/.* mapped/reg/flags`, "a file that is mapped by some for writing, and by some not, is two files with us, and one with CRIU"},
	{`mm-.*/vmas/[0-9]+/fdflags`, "we open a file that is mapped privately for reading alone"},
	{`pagemap-.*\.img/401000`, "CRIU writes to a page of the program to make it execute system calls, which makes it a page of its own"},
	{`core-.*/gpregs/(ax|ip)`, "calls that wait go on waiting with us; CRIU has them fail with EINTR"},
	{`core-.*/tc/timers/(real|virt|prof|posix/[0-9]+)/v(sec|usec|nsec)`, "time goes on"},
	{`core-.*/tc/timers/posix/[0-9]+/clock_id`, "we save which thread's processor time a timer counts"},
	{`core-.*/tc/flags`, "CRIU has none for zombies"},
	{`pstree\.img/.*/threads/.*`, "CRIU has numbers for zombies that are none"},
	{`inventory\.img/.*/(dump_uptime|dump_criu_run_id|network_lock_method)`, "they are of the dump, not of the process"},
	{`timens-0\.img/.*`, "time goes on"},
	{`seccomp\.img`, "CRIU writes one with nothing in it"},
}

// Our images and CRIU's of the same process have the same in them, as crit reads them.
func TestImagesHaveTheSameFields(t *testing.T) {
	for _, s := range []subject{
		victimOf("counter"), victimOf("creds", "threads").with(otherUser), victimOf("fpu"), victimOf("limits"), victimOf("posix"),
		victimOf("process"), victimOf("queues"), victimOf("scheduled"), victimOf("signals"), victimOf("tree"), victimOf("vmas"),
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			testkit.Need(t, append(slices.Clone(s.needs), testkit.Root, testkit.CRIU)...)
			victim := s.start(t)
			var all [2]map[string]string
			for i, p := range []program{stasis, realCRIU} {
				images := t.TempDir()
				s.run(t, p, images, "dump", "-t", fmt.Sprint(victim.Pid), "--leave-running")
				all[i] = fields(t, images)
			}
			ours, theirs := all[0], all[1]
			names := slices.Sorted(maps.Keys(ours))
			for name := range theirs {
				if _, ok := ours[name]; !ok {
					names = append(names, name)
				}
			}
			for _, name := range names {
				if a, b := ours[name], theirs[name]; a != b && why(name) == "" {
					t.Errorf("%s: %q, of CRIU %q", name, a, b)
				}
			}
			victim.MustVerify()
		})
	}
}

// why says why a field may differ, nothing where it may not.
func why(name string) string {
	for _, a := range accepted {
		if regexp.MustCompile("^" + a.field + "$").MatchString(name) {
			return a.why
		}
	}
	return ""
}

// fields are the values of all images in a directory by their paths: "core-7.img/0/tc/comm".
func fields(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.img"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no images in %s: %v", dir, err)
	}
	trees := make(map[string]any)
	for _, file := range files {
		if name := filepath.Base(file); !strings.HasPrefix(name, "pages-") {
			trees[name] = decoded(t, file)
		}
	}
	renumber(t, trees)
	all := make(map[string]string)
	for name, tree := range trees {
		if strings.HasPrefix(name, "pagemap-") {
			tree = pageList(t, tree)
		}
		flatten(all, name, tree)
	}
	return all
}

func decoded(t *testing.T, file string) any {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	prefix, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".img"), "-")
	if filepath.Base(file) == "pipes-data.img" {
		prefix = "pipes-data"
	}
	kinds := map[string]proto.Message{
		"core": &criu_core.CoreEntry{}, "fdinfo": &fdinfo.FdinfoEntry{}, "files": &fdinfo.FileEntry{}, "fs": &fs.FsEntry{}, "ids": &criu_core.TaskKobjIdsEntry{},
		"inventory": &inventory.InventoryEntry{}, "mm": &mm.MmEntry{}, "pagemap": nil, "pipes-data": &pipe_data.PipeDataEntry{},
		"pstree": &pstree.PstreeEntry{}, "seccomp": &seccomp.SeccompEntry{}, "timens": &timens.TimensEntry{}, "remap": &remap_file_path.RemapFilePathEntry{},
	}
	kind, ok := kinds[prefix]
	if !ok {
		t.Fatalf("%s: an image of this kind is not known here", file)
	}
	img, err := crit.New(f, nil, "", false, false).Decode(kind)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	text, err := json.Marshal(img)
	if err != nil {
		t.Fatal(err)
	}
	var tree struct {
		Entries []any `json:"entries"`
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	return tree.Entries
}

// pageList turns a page map into the pages that it has: how they are put together, and whether they might come lazily, is no matter.
func pageList(t *testing.T, tree any) any {
	t.Helper()
	pages := make(map[string]any)
	for _, e := range tree.([]any)[1:] {
		entry := e.(map[string]any)
		at, err := strconv.ParseUint(fmt.Sprint(entry["vaddr"]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.ParseUint(fmt.Sprint(entry["nr_pages"]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		for ; n > 0; n-- {
			pages[fmt.Sprintf("%x", at)] = "there"
			at += 4096
		}
	}
	return pages
}

func flatten(all map[string]string, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			flatten(all, path+"/"+key, value)
		}
	case []any:
		for i, value := range v {
			flatten(all, fmt.Sprintf("%s/%d", path, i), value)
		}
	default:
		all[path] = fmt.Sprint(v)
	}
}

// renumber gives files numbers in the order in which descriptors have them: which a program gives them is its own affair. Directories
// and programs, of which CRIU has one entry for each process, and we have one, have their names instead.
func renumber(t *testing.T, trees map[string]any) {
	t.Helper()
	list, _ := trees["files.img"].([]any)
	files := make(map[string]map[string]any)
	for _, e := range list {
		file := e.(map[string]any)
		files[fmt.Sprint(file["id"])] = file
	}
	each := func(prefix string, do func(entry map[string]any)) {
		for _, name := range slices.Sorted(maps.Keys(trees)) {
			if strings.HasPrefix(name, prefix) {
				for _, e := range trees[name].([]any) {
					do(e.(map[string]any))
				}
			}
		}
	}
	result, numbers := make(map[string]any), make(map[string]string)
	take := func(m map[string]any, key, as string) {
		file := files[fmt.Sprint(m[key])]
		if file == nil {
			return // not of a file
		}
		for _, v := range file {
			if inner, ok := v.(map[string]any); ok {
				delete(inner, "id")
			}
		}
		if reg, ok := file["reg"].(map[string]any); ok && as == "" {
			as = fmt.Sprint(reg["name"]) + " mapped"
			if key == "cwd_id" || key == "root_id" {
				as = fmt.Sprint(reg["name"]) + " directory"
			}
		}
		delete(file, "id")
		result[as], m[key] = file, as
	}
	each("fdinfo-", func(entry map[string]any) {
		id := fmt.Sprint(entry["id"])
		if numbers[id] == "" {
			numbers[id] = strconv.Itoa(len(numbers) + 1)
		}
		take(entry, "id", "descriptor "+numbers[id])
	})
	each("fs-", func(entry map[string]any) {
		take(entry, "cwd_id", "")
		take(entry, "root_id", "")
	})
	each("mm-", func(entry map[string]any) {
		take(entry, "exe_file_id", "")
		vmas, _ := entry["vmas"].([]any)
		for _, v := range vmas {
			take(v.(map[string]any), "shmid", "")
		}
	})
	trees["files.img"] = result
	// Timers in the order of their numbers.
	each("core-", func(entry map[string]any) {
		tc, _ := entry["tc"].(map[string]any)
		timers, _ := tc["timers"].(map[string]any)
		posix, _ := timers["posix"].([]any)
		slices.SortFunc(posix, func(a, b any) int {
			number := func(v any) int {
				n, err := strconv.Atoi(fmt.Sprint(v.(map[string]any)["it_id"]))
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			return cmp.Compare(number(a), number(b))
		})
	})
}
