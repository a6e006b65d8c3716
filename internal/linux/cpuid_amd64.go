package linux

func cpuid(leaf, sub uint32) (a, b, c, d uint32)

// CPUID asks the processor about itself. All processors of a machine give the same answers about the state of threads.
func CPUID(leaf, sub uint32) (a, b, c, d uint32) { return cpuid(leaf, sub) }
