//go:build amd64

package remote

import (
	"stasis.example/internal/linux"
)

// Join says that the process shares its memory with another one, the host. There is one boot block and one scratch area in
// an address space, the host's; from now on the threads of this one, a guest, have their blocks there. All who have that
// memory must be stopped, and none of them entered.
//
// A guest's threads are driven one call at a time, without the park socket: whether the two have the same descriptors or
// not, the number of the socket is the host's to use and to close.
func (p *Process) Join(host *Process) error {
	same, err := p.kernel.Same(host.Live(), p.Live(), linux.SameFiles, 0, 0)
	if err != nil {
		return err
	}
	p.host, p.sameFiles = host, same
	host.guests = append(host.guests, p)
	for _, th := range p.Threads {
		th.apart = true
	}
	for i, th := range host.inSpace() {
		th.index = i
	}
	// What was seen of the memory when the host had stopped, this one may have changed since.
	return host.lookAround()
}

// heirs returns a thread of each guest, those who have the host's descriptors first: in their table ours are left.
func (p *Process) heirs() []*Thread {
	var same, other []*Thread
	for _, guest := range p.guests {
		if guest.sameFiles {
			same = append(same, guest.Threads[0])
		} else {
			other = append(other, guest.Threads[0])
		}
	}
	return append(same, other...)
}

// inSpace returns the threads that have a block in the process's scratch area: its own, and those of its guests.
func (p *Process) inSpace() []*Thread {
	all := p.Threads[:len(p.Threads):len(p.Threads)]
	for _, guest := range p.guests {
		all = append(all, guest.Threads...)
	}
	return all
}
