package snapshot

// SigSet is a set of signals; bit 0 is signal 1.
type SigSet uint64

// Has reports whether a signal is in the set.
func (s SigSet) Has(signal int) bool { return signal >= 1 && signal <= 64 && s>>(signal-1)&1 != 0 }

// NumSignals is how many signals there are.
const NumSignals = 64

// Handlers are signal dispositions, shared by the threads of a process and by processes with CLONE_SIGHAND.
type Handlers struct {
	ID       ObjectID
	*Actions // not to be changed: a process that was forked has the same as a rule, and they are there once
}

// Actions are what happens when signals come, by number less one; those of SIGKILL and SIGSTOP are zero.
type Actions [NumSignals]Action

// An Action is what happens when a signal comes, as rt_sigaction(2) has it.
type Action struct {
	Handler  uint64 // an address; 0 is SIG_DFL, 1 SIG_IGN
	Flags    uint64 // SA_ flags
	Restorer uint64 // an address
	Mask     SigSet
	Compat   bool // set by a 32-bit call on a 64-bit kernel
}

// SiginfoSize is the size of the kernel's siginfo_t.
const SiginfoSize = 128

// Siginfo is a signal that waits, as the kernel has it: the architecture's siginfo_t.
type Siginfo [SiginfoSize]byte

// Signal returns the number of the signal.
func (s *Siginfo) Signal() int {
	return int(int32(uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24))
}

// Code returns si_code: who sent the signal. What is negative came from a program and can be queued again as it is.
func (s *Siginfo) Code() int {
	return int(int32(uint32(s[8]) | uint32(s[9])<<8 | uint32(s[10])<<16 | uint32(s[11])<<24))
}

// An IntervalTimer is a timer of setitimer(2). A Value of zero is off. The kernel has microseconds: Nsec is whole ones.
type IntervalTimer struct {
	Interval, Value Timespec
}

// A Timer is a timer of timer_create(2).
type Timer struct {
	ID      uint32 // what timer_create gave
	Clock   int32  // a CLOCK_ number, or that of a process or a thread
	Notify  uint32 // SIGEV_ bits
	Signal  uint32
	Value   uint64 // sigev_value
	Thread  int    // of SIGEV_THREAD_ID; 0 for none
	Overrun uint32

	Interval, Remaining Timespec // zero Remaining is off
}
