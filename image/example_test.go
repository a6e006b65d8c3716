package image_test

import (
	"errors"
	"fmt"
	"io"
	"log"

	"stasis.example/image"
	"stasis.example/image/entry"
)

// What a dump holds: the processes, and the name of each.
func Example() {
	d, err := image.OpenDir("testdata/golden/tree")
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	if _, err := image.ReadInventory(d); err != nil {
		log.Fatal(err)
	}
	tree, err := image.ReadPSTree(d)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range tree {
		var core entry.Core
		if err := image.ReadOne(d, image.Core, uint64(p.PID), &core); err != nil {
			log.Fatal(err)
		}
		fmt.Println(core.TC.Comm, "threads:", len(p.Threads), "state:", core.TC.TaskState)
	}
	// Output:
	// victim threads: 1 state: 1
	// victim threads: 1 state: 3
	// victim threads: 1 state: 2
	// victim threads: 1 state: 1
	// victim threads: 1 state: 1
}

// Images of one kind are read and written whole where they are small.
func ExampleReadAll() {
	d := image.NewMemDir(nil)
	err := image.WriteAll(d, image.PSTree, 0,
		&entry.PSTree{PID: 42, PGID: 42, SID: 42, Threads: []uint32{42, 43}},
		&entry.PSTree{PID: 44, PPID: 42, PGID: 42, SID: 42, Threads: []uint32{44}})
	if err != nil {
		log.Fatal(err)
	}
	tree, err := image.ReadAll[entry.PSTree](d, image.PSTree, 0)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range tree {
		fmt.Println(p.PID, p.PPID, p.Threads)
	}
	// Output:
	// 42 0 [42 43]
	// 44 42 [44]
}

// In some images bytes follow an entry, which says how many.
func ExampleReader_Payload() {
	d, err := image.OpenDir("testdata/golden/zoo")
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	r, err := image.Open(d, image.FIFOData, 0)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	for {
		var p entry.PipeData
		if err := r.Next(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			log.Fatal(err)
		}
		data, err := io.ReadAll(r.Payload(int64(p.Bytes)))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%q, capacity %d\n", data, p.GetSize())
	}
	// Output:
	// "in the fifo", capacity 65536
}

// A dump that wrote only what had changed since the one before: a chain finds all pages.
func ExampleOpenChain() {
	const pageSize = 4096
	save := func(d image.Dir, runs ...image.PageRun) {
		w, err := image.CreatePagemap(d, image.Pagemap, 42, 1, pageSize)
		if err != nil {
			log.Fatal(err)
		}
		for _, run := range runs {
			if err := w.Add(run); err != nil {
				log.Fatal(err)
			}
		}
		pages, err := d.Create(image.Pages.File(1))
		if err != nil {
			log.Fatal(err)
		}
		if _, err := pages.Write(make([]byte, w.Present()*pageSize)); err != nil {
			log.Fatal(err)
		}
		if err := errors.Join(pages.Close(), w.Close()); err != nil {
			log.Fatal(err)
		}
	}
	before := image.NewMemDir(nil)
	save(before, image.PageRun{Addr: 0x400000, Pages: 4, Flags: image.PagePresent})
	after := image.NewMemDir(before)
	save(after,
		image.PageRun{Addr: 0x400000, Pages: 1, Flags: image.PagePresent},
		image.PageRun{Addr: 0x401000, Pages: 3, Flags: image.PageParent})

	c, err := image.OpenChain(after, image.Pagemap, 42, pageSize, image.Limits{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for {
		e, err := c.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%#x: %d pages, level %d, offset %#x\n", e.Addr, e.Pages, e.Level, e.Offset)
	}
	// Output:
	// 0x400000: 1 pages, level 0, offset 0x0
	// 0x401000: 3 pages, level 1, offset 0x1000
}
