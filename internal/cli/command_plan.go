package cli

import (
	"context"
	"fmt"
	"strings"

	builtin "stasis.example/engine"
	"stasis.example/image"
)

// planAnswer is what --json prints of a plan.
type planAnswer struct {
	OK        bool   `json:"ok"`
	ImagesDir string `json:"images_dir"`
	Plan      string `json:"plan"`
}

// plan shows what the built-in engine would do to restore a directory, or every reason why it could not.
func (r *run) plan(ctx context.Context) error {
	s := r.settings
	path := s.imagesDir
	if word := r.operand(); word != "" {
		if path != "" && path != word {
			return &usageError{err: fmt.Errorf("plan: the images are in %s, by --images-dir, or in %s?", path, word), brief: true}
		}
		path = word
	}
	f, err := openDirectory(path, "images")
	if err != nil {
		return err
	}
	defer f.Close()
	dir, err := image.OpenDirFile(f)
	if err != nil {
		return fmt.Errorf("the images directory cannot be read: %w", err)
	}
	defer dir.Close()
	if err := verifyCheckpointIn(f); err != nil {
		return &usageError{err: err, brief: true}
	}
	o := builtin.PlanOptions{ShellJob: s.opts.ShellJob != nil && *s.opts.ShellJob}
	for _, in := range s.inherit {
		o.Inherit = append(o.Inherit, in.key)
	}
	text, err := builtin.Plan(ctx, dir, o)
	switch {
	case err == nil:
	case ctx.Err() != nil: // which says nothing of the images
		return context.Cause(ctx)
	default:
		return &refusedError{dir: absolute(f.Name()), err: err}
	}
	if s.json {
		r.printJSON(planAnswer{true, absolute(f.Name()), text})
	} else {
		fmt.Fprint(r.Stdout, text)
	}
	return nil
}

// refusedError has the reasons why images cannot be restored, one a line.
type refusedError struct {
	dir string
	err error
}

func (e *refusedError) Error() string {
	const indent = "\n  "
	text := fmt.Sprintf("the images in %s cannot be restored by the built-in engine:%s%s", e.dir, indent, strings.ReplaceAll(e.err.Error(), "\n", indent))
	if strings.Contains(text, "as a shell job") {
		text += indent + shellJobHint
	}
	return text
}

func (e *refusedError) Unwrap() error { return e.err }
