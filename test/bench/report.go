package main

import (
	"fmt"
	"slices"
	"time"
)

// results are what was measured of a piece, by column and peer.
type results struct {
	values map[column]map[string][]float64
}

func (r *results) add(c column, peer string, v float64) {
	if r.values[c] == nil {
		r.values[c] = map[string][]float64{}
	}
	r.values[c][peer] = append(r.values[c][peer], v)
}

// print prints a column as a row, if anything was measured.
func (r *results) print(p piece, c column) {
	theirs, ours := r.values[c]["CRIU"], r.values[c]["stasis"]
	if len(theirs) == 0 || len(ours) == 0 {
		return
	}
	goal := ""
	if g, ok := p.goals[c]; ok {
		goal = fmt.Sprintf("%.2f", g)
	}
	fmt.Printf("| %s | %s | %s | %s | %s | %.2f | %s | %s, %s |\n", p.name, p.place, c, c.text(median(theirs)), c.text(median(ours)),
		median(ours)/median(theirs), goal, c.spread(ours), c.spread(theirs))
}

// text says a value in its unit.
func (c column) text(v float64) string {
	switch c {
	case dumpPeak, restorePeak:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f ms", v/1e6)
}

func (c column) spread(all []float64) string {
	return c.text(slices.Min(all)) + "–" + c.text(slices.Max(all))
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// load is how long a fixed piece of work has taken each time.
type load struct {
	times []float64
	sink  uint64
}

// calibrate does the work: some milliseconds on an idle machine.
func (l *load) calibrate() {
	began := time.Now()
	x := l.sink | 1
	for range 10_000_000 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	l.sink = x
	l.times = append(l.times, float64(time.Since(began)))
}

// print says how much else the machine had to do.
func (l *load) print() {
	if len(l.times) == 0 {
		return
	}
	sorted := slices.Sorted(slices.Values(l.times))
	at := func(part float64) float64 { return sorted[int(part*float64(len(sorted)-1))] / 1e6 }
	fmt.Printf("\nThe machine's load: a fixed loop on one processor, before each of %d rounds, took %.1f ms at best, %.1f in the median, %.1f at the ninth decile, %.1f at most.\n",
		len(sorted), at(0), at(0.5), at(0.9), at(1))
}
