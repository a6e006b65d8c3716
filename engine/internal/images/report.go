package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// maxProblems is how many problems a report keeps. A hostile image has one in every byte.
const maxProblems = 100

// A Report collects what is wrong with a dump, and what is worth to be said about it though it is not. The zero value is
// ready for use, by several at a time.
type Report struct {
	mu       sync.Mutex
	problems []*Problem
	dropped  int // problems after the first maxProblems
	notes    []string
	ended    func() error // of the context of whoever waits for the report; nil for one that waits as long as it takes
}

// Until says that nobody waits for the report when the context has ended.
func (r *Report) Until(ctx context.Context) { r.ended = ctx.Err }

// Stopped reports whether nobody waits for the report any more. Whoever works for it looks in every round of a loop that images can
// make long, and leaves it; what has been found until then is of no use to anybody.
func (r *Report) Stopped() bool { return r != nil && r.ended != nil && r.ended() != nil }

// A Problem is one reason why a dump cannot be restored, or a tree not be dumped.
type Problem struct {
	Where string // the image, "core-7.img", or the process, "process 7"
	What  string
	Err   error // errors.ErrUnsupported, image.ErrCorrupt, or what a reader returned
}

func (p *Problem) Error() string { return p.Where + ": " + p.What }

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

func (r *Report) add(p *Problem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.problems) >= maxProblems {
		r.dropped++
		return
	}
	for _, q := range r.problems {
		if q.Where == p.Where && q.What == p.What {
			return
		}
	}
	r.problems = append(r.problems, p)
}

// Unsupported says that something is there which the engine cannot restore, or not write.
func (r *Report) Unsupported(where, format string, args ...any) {
	r.add(&Problem{where, fmt.Sprintf(format, args...), errors.ErrUnsupported})
}

// Damaged says that something cannot be true of any tree of processes.
func (r *Report) Damaged(where, format string, args ...any) {
	r.add(&Problem{where, fmt.Sprintf(format, args...), ErrInvalid})
}

// Failed says that something could not be read.
func (r *Report) Failed(where string, err error) {
	// Package image names the file in front of its errors; here it is in Where already.
	what := strings.TrimPrefix(err.Error(), "image "+where+": ")
	r.add(&Problem{where, what, err})
}

// Note keeps a remark.
func (r *Report) Note(format string, args ...any) {
	note := fmt.Sprintf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.notes) < maxProblems && !slices.Contains(r.notes, note) {
		r.notes = append(r.notes, note)
	}
}

// Merge adds what another report has.
func (r *Report) Merge(other *Report) {
	for _, p := range other.problems {
		r.add(p)
	}
	for _, note := range other.notes {
		r.Note("%s", note)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped += other.dropped
}

// Notes returns the remarks.
func (r *Report) Notes() []string { return r.notes }

// Empty reports whether there are no problems.
func (r *Report) Empty() bool { return len(r.problems) == 0 }

// Err returns all problems as one error, a [*Refusal], or nil where there are none.
func (r *Report) Err() error {
	if r.Empty() {
		return nil
	}
	return &Refusal{r.problems, r.dropped}
}

// ErrInvalid is the cause of problems with images that can be read and contradict themselves or the kernel.
var ErrInvalid = errors.New("images are not those of a tree of processes")

// A Refusal is the error of a dump that cannot be restored: every reason. errors.Is and errors.As look at each.
type Refusal struct {
	Problems []*Problem
	More     int // problems that were not kept
}

func (e *Refusal) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(p.Error())
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\nand %d more problems", e.More)
	}
	return b.String()
}

// Unwrap returns the problems.
func (e *Refusal) Unwrap() []error {
	errs := make([]error, len(e.Problems))
	for i, p := range e.Problems {
		errs[i] = p
	}
	return errs
}
