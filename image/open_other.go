//go:build !linux

package image

import "os"

// openIn opens a file of a directory.
func (d *osDir) openIn(name string, flags int) (*os.File, error) {
	return d.root.OpenFile(name, flags, fileMode)
}

// regular reports whether f is certainly a regular file.
func regular(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode().IsRegular()
}

// sizeOf returns the length of a file.
func sizeOf(f File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
