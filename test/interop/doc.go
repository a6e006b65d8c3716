// Package interop holds the tests across programs: what one dumps, another restores.
package interop
