// Package testkit is what the project's tests share: what they need of the machine, the programs they freeze, and the
// proof that they left nothing behind.
//
// A test says what it needs before anything else:
//
//	func TestDumpCounter(t *testing.T) {
//		testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
//		v := testkit.StartVictim(t, "counter")
//		… dump v.Pid, restore it …
//		v.Restored(t)
//		v.Verify(t)
//	}
//
// Need is the only way to skip a test; where everything must be there (STASIS_TEST_MUST, which CI sets) a missing
// thing fails the test instead, but for the few that the list in optional.go excuses.
//
// A package whose tests start processes or open descriptors has a TestMain:
//
//	func TestMain(m *testing.M) { testkit.Main(m) }
//
// Main makes the test program the subreaper of everything below it, so that a process restored in the background, or
// one whose parent died, comes back to it and is waited for when it dies, as init would; when the tests are done it
// fails the run if a process, a stopped task, a descriptor, a mount or a goroutine is left.
//
// Nothing here sleeps to give something time to happen. Waiting is for an event of the kernel's (a pidfd, inotify), or,
// where there is none, for a condition that is looked at again and again until a deadline (WaitFor).
package testkit
