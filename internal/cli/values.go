package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
)

// The parsers of values. Where CRIU reads as much of a number as it can and takes the rest for zero, these refuse the
// whole: a mistyped pid or size is never acted on.

func parsePID(text string) (int32, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q is no process id", text)
	}
	return int32(n), nil
}

func parseNumber(text string, most uint32) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > uint64(most) {
		return 0, fmt.Errorf("%q is no whole number from 0 to %d", text, most)
	}
	return uint32(n), nil
}

func parsePort(text string) (int, error) {
	n, err := parseNumber(text, math.MaxUint16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no TCP port (1 to 65535)", text)
	}
	return int(n), nil
}

func parseFD(text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no number of an open file", text)
	}
	return int(n), nil
}

// parseSize reads a size in bytes, with K, M or G behind it for the powers of 1024.
func parseSize(text string) (uint32, error) {
	number, shift := text, 0
	switch {
	case strings.HasSuffix(text, "K"):
		number, shift = strings.TrimSuffix(text, "K"), 10
	case strings.HasSuffix(text, "M"):
		number, shift = strings.TrimSuffix(text, "M"), 20
	case strings.HasSuffix(text, "G"):
		number, shift = strings.TrimSuffix(text, "G"), 30
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n<<shift > math.MaxUint32 {
		return 0, fmt.Errorf("%q is no size below 4G, such as 512K or 16M", text)
	}
	return uint32(n << shift), nil
}

// CRIU's bits of CPU capabilities. Its default is fpu and ins, as criu(8) says.
const (
	capFPU     = 1 << 0
	capCPU     = 1 << 1
	capIns     = 1 << 2
	capImage   = 1 << 3 // write the capabilities into the images, and compare them at the restore
	capAll     = capFPU | capCPU | capIns
	capDefault = capFPU | capIns
)

// parseCPUCap applies a list such as "cpu,^ins" to a set of capabilities.
func parseCPUCap(caps uint32, text string) (uint32, error) {
	for word := range strings.SplitSeq(text, ",") {
		name, inverse := strings.TrimPrefix(word, "^"), strings.HasPrefix(word, "^")
		var bits uint32
		switch name {
		case "fpu":
			bits = capFPU
		case "cpu":
			bits = capCPU
		case "ins":
			bits = capIns
		case "all":
			bits = capAll
		case "none":
			caps = 0
			if inverse {
				caps = capAll
			}
			continue
		default:
			return 0, fmt.Errorf("%q is no CPU capability; there are cpu, fpu, ins, all and none, each with ^ before it for the opposite", word)
		}
		if inverse {
			caps &^= bits
		} else {
			caps |= bits
		}
	}
	if caps != 0 {
		caps |= capImage
	}
	return caps, nil
}

// parseVerbosity applies -v, -vvv, -vNUM and --verbosity=NUM to a level. A value that is no number counts as 0, as with
// criu: -verbosity=0 is the option -v with the value "erbosity=0", and means silence.
func parseVerbosity(level int, value string, has bool) int {
	switch {
	case !has:
		return level + 1
	case strings.HasPrefix(value, "v"):
		return level + len(value) + 1
	}
	digits := 0
	for digits < len(value) && value[digits] >= '0' && value[digits] <= '9' {
		digits++
	}
	n, err := strconv.Atoi(value[:digits])
	if err != nil {
		return 0
	}
	return min(n, math.MaxInt32)
}

// splitPair splits at the first separator, both sides of which must say something.
func splitPair(text, separator, form string) (a, b string, err error) {
	a, b, ok := strings.Cut(text, separator)
	if !ok || a == "" || b == "" {
		return "", "", fmt.Errorf("%q is not of the form %s", text, form)
	}
	return a, b, nil
}

func parseJoinNS(text string) (*rpc.JoinNamespace, error) {
	kind, target, err := splitPair(text, ":", "NS:PID or NS:FILE")
	if err != nil {
		return nil, err
	}
	switch kind {
	case "ipc", "net", "time", "user", "uts":
	default:
		return nil, fmt.Errorf("%q is no namespace that can be joined; there are ipc, net, time, user and uts", kind)
	}
	j := &rpc.JoinNamespace{NS: kind}
	var extra string
	var has bool
	if j.NSFile, extra, has = strings.Cut(target, ","); has {
		if kind != "user" {
			return nil, fmt.Errorf("%q has options, which only user:PID,UID,GID takes", text)
		}
		j.ExtraOpt = &extra
	}
	return j, nil
}

// inherited is an open file of the command line's that stands in for a dumped one.
type inherited struct {
	number int
	key    string
}

func parseInherit(text string) (inherited, error) {
	rest, ok := strings.CutPrefix(text, "fd[")
	number, key, found := strings.Cut(rest, "]:")
	fd, err := parseFD(number)
	if !ok || !found || key == "" || err != nil {
		return inherited{}, fmt.Errorf("%q is not of the form fd[NUM]:RES", text)
	}
	return inherited{fd, key}, nil
}

func parseUnixInodes(text string) ([]*rpc.UnixSk, error) {
	var list []*rpc.UnixSk
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseUint(word, 10, 32)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%q is no inode of a unix socket", word)
		}
		list = append(list, &rpc.UnixSk{Inode: uint32(n)})
	}
	return list, nil
}

func parseCgroupRoot(text string) (*rpc.CgroupRoot, error) {
	controller, path, has := strings.Cut(text, ":")
	if !has {
		controller, path = "", text
	}
	if path == "" {
		return nil, fmt.Errorf("%q is not of the form [CONTROLLER:]/PATH", text)
	}
	root := &rpc.CgroupRoot{Path: path}
	if controller != "" {
		root.Ctrl = &controller
	}
	return root, nil
}

func parseEmptyNS(text string) (uint32, error) {
	if text != "net" {
		return 0, fmt.Errorf("%q cannot be left empty; only net can", text)
	}
	return unix.CLONE_NEWNET, nil
}
