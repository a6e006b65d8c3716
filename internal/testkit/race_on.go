//go:build race

package testkit

// RaceDetector tells whether the race detector is in this program: it takes several times as long.
const RaceDetector = true
