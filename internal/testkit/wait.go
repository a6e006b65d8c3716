package testkit

import (
	"fmt"
	"testing"
	"time"
)

// Patience is how long testkit waits for what should happen at once before it calls the test failed. It is long, since
// a loaded machine of two cores is slow, and costs nothing where things work.
const Patience = 60 * time.Second

// WaitFor looks at a condition again and again, for at most Patience, until it holds, and fails the test when it never
// does. It is for conditions that the kernel gives no event for; nothing may rest on how often it looks.
func WaitFor(t testing.TB, what string, condition func() bool) {
	t.Helper()
	if !poll(Patience, condition) {
		t.Fatalf("waited %v for %s", Patience, what)
	}
}

// poll looks at a condition until it holds or the time is over, and reports whether it held.
func poll(limit time.Duration, condition func() bool) bool {
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if condition() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pause)
	}
}

// errTooLate is what waiting ends with when Patience is over.
func errTooLate(what string) error { return fmt.Errorf("waited %v for %s", Patience, what) }
