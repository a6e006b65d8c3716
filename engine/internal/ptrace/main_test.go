package ptrace

import (
	"testing"

	"stasis.example/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }
