// Package usermod uses the packages of stasis as somebody else's program would: from another module, by what they
// export.
package usermod
