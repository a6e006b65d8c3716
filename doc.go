// Package stasis is the root of the project and holds no code: README.md says what stasis is, ARCHITECTURE.md
// how the house is laid out.
package stasis
