package testkit

// optional names the requirements that a machine prepared for all tests may still lack, each with the reason. It is the
// only such list: a test that needs anything else runs in CI or fails there.
func optional(name string) (reason string, ok bool) {
	switch name {
	case SoftDirty.Name:
		return "a kernel is built with CONFIG_MEM_SOFT_DIRTY or is not, and the distributions differ", true
	case "transparent huge pages", "KSM", "swap space":
		return "how memory is kept is a setting of the whole machine, and in a container another's", true
	case NoRaceDetector.Name:
		return "the run without the race detector has the test", true
	case Program("node").Name, Program("java").Name, Program("javac").Name:
		return "it is large, and one of several programs that a test is about", true
	}
	return "", false
}
