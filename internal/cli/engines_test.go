package cli

import (
	"testing"

	"stasis.example/internal/testkit"
)

// withEngines runs a test with CRIU and with the built-in engine.
func withEngines(t *testing.T, test func(t *testing.T, env []string)) {
	t.Helper()
	for _, engine := range []string{"criu", "builtin"} {
		t.Run(engine, func(t *testing.T) {
			env := realEnv(t, engine)
			if engine == "criu" {
				env = criuEnv(t)
			}
			test(t, env)
		})
	}
}

func TestJSON(t *testing.T) {
	needReal(t)
	withEngines(t, testJSON)
}

func TestForeground(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("exitcode"))
	withEngines(t, testForeground)
}

func TestForegroundSignals(t *testing.T) {
	needReal(t)
	withEngines(t, testForegroundSignals)
}

func TestExecCmd(t *testing.T) {
	needReal(t)
	withEngines(t, testExecCmd)
}

func TestDemo(t *testing.T) {
	needReal(t)
	withEngines(t, testDemo)
}

func TestSibling(t *testing.T) {
	needReal(t)
	withEngines(t, testSibling)
}

func TestTerminal(t *testing.T) {
	needReal(t)
	withEngines(t, testTerminal)
}

func TestInterrupt(t *testing.T) {
	needReal(t)
	withEngines(t, testInterrupt)
}
