//go:build amd64

package collect

import (
	"slices"

	"stasis.example/internal/proc"
)

// A descriptor is what /proc shows of one.
type descriptor struct {
	fd   int
	link string
	info proc.FDInfo
}

// A part is descriptors that follow each other, as far as they could be read.
type part struct {
	list []descriptor
	err  error
}

// partLength is how many descriptors are read at once.
const partLength = 64

// look calls a function for each descriptor of a task, in the order of their numbers; what it gets is its for the time of the call. Of
// many descriptors, more are read while the function has to do with others: the two take about as long as each other.
func look(dir proc.Dir, yield func(*descriptor) error) error {
	table, err := dir.Descriptors()
	if err != nil {
		return err
	}
	defer table.Close()
	numbers, err := table.Numbers()
	if err != nil {
		return err
	}
	if len(numbers) <= partLength {
		p := part{list: make([]descriptor, 0, len(numbers))}
		p.read(table, numbers)
		return p.tell(yield)
	}
	ahead, used, stop := make(chan part, 1), make(chan part, 2), make(chan struct{})
	go func() {
		defer close(ahead)
		for next := range slices.Chunk(numbers, partLength) {
			var p part
			select {
			case p = <-used:
			default:
			}
			p.read(table, next)
			select {
			case ahead <- p:
			case <-stop:
				return
			}
		}
	}()
	defer func() {
		close(stop)
		for range ahead { // until it has ended
		}
	}()
	for p := range ahead {
		if err := p.tell(yield); err != nil {
			return err
		}
		select {
		case used <- p:
		default:
		}
	}
	return nil
}

// read reads descriptors in place of those that were in the part.
func (p *part) read(table *proc.Descriptors, numbers []int) {
	p.list, p.err = p.list[:0], nil
	for _, fd := range numbers {
		d := descriptor{fd: fd}
		if d.link, p.err = table.Link(fd); p.err != nil {
			return
		}
		if d.info, p.err = table.Info(fd); p.err != nil {
			return
		}
		p.list = append(p.list, d)
	}
}

func (p *part) tell(yield func(*descriptor) error) error {
	for i := range p.list {
		if err := yield(&p.list[i]); err != nil {
			return err
		}
	}
	return p.err
}
