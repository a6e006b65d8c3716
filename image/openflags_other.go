//go:build !unix

package image

const openFlags = 0
