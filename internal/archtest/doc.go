// Package archtest holds the rules of the house as tests: who may import whom, as ARCHITECTURE.md says it, and the other
// rules listed there. It reads the sources of the module as text and runs no linter that would have to be installed.
package archtest
