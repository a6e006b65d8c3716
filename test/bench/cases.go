package main

import (
	"fmt"
	"time"
)

// A place is where images go.
type place string

const (
	inMemory place = "tmpfs"
	onDisk   place = "disk"
)

// A piece is work to be measured: a dump of one victim and, where the victim is killed by it, a restore.
type piece struct {
	name   string
	victim []string // of the program many
	place  place
	stays  bool // it is left running
	goals  map[column]float64
}

// A column is something that is measured of a piece.
type column string

const (
	dumpWall    column = "dump"
	restoreWall column = "restore"
	frozenTime  column = "frozen"
	dumpPeak    column = "peak KiB, dump"
	restorePeak column = "peak KiB, restore"
)

func pieces() []piece {
	gib := []string{"pages", "262144"}
	return []piece{
		{"tiny process, left running", []string{"pages", "1"}, inMemory, true, map[column]float64{dumpWall: 0.20}},
		{"tiny process", []string{"pages", "1"}, inMemory, false, map[column]float64{restoreWall: 0.25}},
		{"1 GiB", gib, inMemory, false, map[column]float64{dumpWall: 0.65, restoreWall: 0.45}},
		{"1 GiB, left running", gib, inMemory, true, map[column]float64{frozenTime: 0.65}},
		{"1 GiB", gib, onDisk, false, map[column]float64{dumpWall: 0.60, restoreWall: 0.45}},
		{"101 processes", []string{"processes", "100"}, inMemory, false, map[column]float64{dumpWall: 0.40, restoreWall: 0.40}},
		{"64 MiB", []string{"pages", "16384"}, inMemory, false, map[column]float64{dumpPeak: 1, restorePeak: 1}},
		{"256 MiB", []string{"pages", "65536"}, inMemory, false, map[column]float64{dumpPeak: 1, restorePeak: 1}},
	}
}

// kinds are what the curves are drawn over, with how many there are at most.
var kinds = []struct {
	name string
	most int
}{{"pages", 100_000}, {"apart", 100_000}, {"mappings", 10_000}, {"files", 10_000}, {"threads", 1000}, {"processes", 1000}}

// run does everything, and prints it.
func (b *bench) run(curves bool) error {
	fmt.Printf("## Against CRIU\n\nMedians of %d rounds, in turn.\n\n", b.rounds)
	fmt.Println("| case | images in | what | CRIU | stasis | ratio | goal | spread of stasis, of CRIU |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, p := range pieces() {
		if !b.only.MatchString(p.name + " " + string(p.place)) {
			continue
		}
		r, err := b.measure(p, b.rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		for _, c := range []column{dumpWall, restoreWall, frozenTime, dumpPeak, restorePeak} {
			r.print(p, c)
		}
	}
	if curves {
		if err := b.curves(); err != nil {
			return err
		}
	}
	b.load.print()
	return nil
}

func (b *bench) curves() error {
	const rounds = 5
	fmt.Printf("\n## How cost grows\n\nMilliseconds, medians of %d rounds, in turn. The last column is what one more costs, from 1 to the most.\n\n", rounds)
	fmt.Println("| of | what | program | 1 | 10 | 100 | 1,000 | 10,000 | 100,000 | µs each |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	for _, k := range kinds {
		if !b.only.MatchString("curve of " + k.name) {
			continue
		}
		var points []*results
		for n := 1; n <= k.most; n *= 10 {
			r, err := b.measure(piece{name: k.name, victim: []string{k.name, fmt.Sprint(n)}, place: inMemory}, rounds)
			if err != nil {
				return fmt.Errorf("%d %s: %w", n, k.name, err)
			}
			points = append(points, r)
		}
		for _, c := range []column{dumpWall, restoreWall} {
			for _, peer := range b.peers {
				if len(points[0].values[c][peer.name]) > 0 {
					printCurve(k.name, c, peer.name, points, k.most)
				}
			}
		}
	}
	return nil
}

func printCurve(kind string, c column, peer string, points []*results, most int) {
	fmt.Printf("| %s | %s | %s |", kind, c, peer)
	for i := range 6 {
		if i < len(points) {
			fmt.Printf(" %.1f", median(points[i].values[c][peer])/1e6)
		}
		fmt.Print(" |")
	}
	first, last := median(points[0].values[c][peer]), median(points[len(points)-1].values[c][peer])
	fmt.Printf(" %.2f |\n", (last-first)/float64(most-1)/float64(time.Microsecond))
}
