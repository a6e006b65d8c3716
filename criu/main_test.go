package criu_test

import (
	"testing"

	"stasis.example/criu/criutest"
	"stasis.example/internal/testkit"
)

func TestMain(m *testing.M) {
	criutest.ServeSwrk()
	helpers()
	testkit.Main(m)
}
