package images

import (
	"context"

	"stasis.example/image"
)

// untilStopped is a directory of which nothing can be read once nobody waits for the report any more: package image reads some images
// as a whole.
type untilStopped struct {
	image.Dir
	r *Report
}

// Unwrap returns the directory that is read, whose buffers package image uses again.
func (d untilStopped) Unwrap() image.Dir { return d.Dir }

func (d untilStopped) Open(name string) (image.File, error) {
	if d.r.Stopped() {
		return nil, context.Canceled
	}
	f, err := d.Dir.Open(name)
	if err != nil {
		return nil, err
	}
	return untilStoppedFile{f, d.r}, nil
}

type untilStoppedFile struct {
	image.File
	r *Report
}

func (f untilStoppedFile) Read(b []byte) (int, error) {
	if f.r.Stopped() {
		return 0, context.Canceled
	}
	return f.File.Read(b)
}
