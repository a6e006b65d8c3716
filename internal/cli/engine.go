package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"stasis.example/criu"
	"stasis.example/internal/criuconf"
)

// engineKind is a way to get things done.
type engineKind int

const (
	engineBuiltin engineKind = iota // the built-in engine, in this process
	engineCRIU                      // a `criu swrk` child
	engineService                   // a service socket
)

// engine is the choice of --engine and STASIS_ENGINE.
type engine struct {
	kind engineKind
	path string // of the program or the socket; "" is the default
}

const engineVariable = "STASIS_ENGINE"

// parseEngine reads builtin, criu[:PATH] or service[:SOCKET].
func parseEngine(text string) (engine, error) {
	kind, path, has := strings.Cut(text, ":")
	if has && path == "" {
		return engine{}, fmt.Errorf("%q names nothing behind the colon", text)
	}
	switch kind {
	case "builtin":
		if has {
			return engine{}, fmt.Errorf("%q: the built-in engine is this program, so there is nothing to name behind the colon", text)
		}
		return engine{kind: engineBuiltin}, nil
	case "criu":
		return engine{engineCRIU, path}, nil
	case "service":
		return engine{engineService, path}, nil
	}
	return engine{}, fmt.Errorf("%q is no engine; there are builtin, criu, criu:PATH and service:SOCKET", text)
}

func (e engine) String() string {
	name := map[engineKind]string{engineBuiltin: "builtin", engineCRIU: "criu", engineService: "service"}[e.kind]
	if e.path != "" {
		name += ":" + e.path
	}
	return name
}

var errNoCRIU = errors.New("there is no criu: it is not in PATH; install it, or say where it is with --engine criu:PATH or " + engineVariable)

// findCRIU is the criu program: the one that was named, or the first in PATH that is not this program under the name
// of criu.
func findCRIU(path, searchPath string) (string, error) {
	if strings.ContainsRune(path, '/') {
		return path, nil
	}
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		self = nil
	}
	name := path
	if name == "" {
		name = "criu"
	}
	for _, dir := range filepath.SplitList(searchPath) {
		if dir == "" {
			dir = "."
		}
		candidate := filepath.Join(dir, name)
		info, err := os.Stat(candidate)
		if err != nil || info.Mode()&0o111 == 0 || info.IsDir() {
			continue
		}
		if self != nil && os.SameFile(info, self) {
			continue
		}
		if !strings.ContainsRune(candidate, '/') {
			candidate = "./" + candidate // as exec(3) would take it, not to be searched for again
		}
		return candidate, nil
	}
	if path != "" {
		return "", fmt.Errorf("there is no program %s in PATH; name it with its directory, or install it", name)
	}
	return "", errNoCRIU
}

// socket is the path of a service's socket.
func (e engine) socket() string {
	if e.path == "" {
		return criu.DefaultSocket
	}
	return e.path
}

// peer is an engine made ready for one operation.
type peer struct {
	client *criu.Client
	name   string // for people
	dir    string // of a swrk child's configuration file, "" for none
}

func (p *peer) close() {
	if p.dir != "" {
		os.RemoveAll(p.dir)
	}
}

// kinship is how near to this program a swrk child is kept.
type kinship int

const (
	// apart: in a process group of its own, so that Ctrl-C reaches this program only, which then has the child undo
	// what it did.
	apart kinship = iota
	// together: in our process group and session, which a restored shell job inherits.
	together
	// detached: in a session of its own, because something that it leaves behind outlives us.
	detached
)

// openPeer makes the engine ready. Whatever the engine cannot be asked is refused here, by name. The child's standard
// error is where its log goes.
func (r *run) openPeer(stderr *os.File, kin kinship) (*peer, error) {
	s := r.settings
	switch s.engine.kind {
	case engineBuiltin:
		return r.openBuiltin(stderr)
	case engineService:
		if len(s.child) > 0 {
			return nil, &usageError{err: fmt.Errorf("%s cannot be asked of a service: CRIU's RPC has no field for it; use --engine criu", s.child[0].flag), brief: true}
		}
		t := &criu.Service{Path: s.engine.path}
		return &peer{client: criu.New(t), name: t.String()}, nil
	default:
		path, err := findCRIU(s.engine.path, r.env.get("PATH"))
		if err != nil {
			return nil, err
		}
		t := &criu.Swrk{Path: path, Stderr: stderr, SysProcAttr: &syscall.SysProcAttr{Setpgid: kin == apart, Setsid: kin == detached}}
		if kin != detached {
			t.Stdin = r.Stdin
		}
		if s.opts.DisplayStats != nil && *s.opts.DisplayStats {
			t.Stdout = r.Stdout
		}
		p := &peer{client: criu.New(t), name: path}
		if t.Env, p.dir, err = r.childEnvironment(); err != nil {
			return nil, err
		}
		return p, nil
	}
}

// childEnvironment is the environment of a swrk child. The child reads CRIU's configuration files too. All but the
// system's one were read here and are in the request, so they are kept from it; the file that it finds in their place
// has what the RPC has no field for.
func (r *run) childEnvironment() (env []string, dir string, err error) {
	set := make(map[string]string)
	home := r.env.get("HOME")
	if home != "" {
		if _, err := os.Lstat(filepath.Join(home, userConfig)); err != nil {
			home = ""
		}
	}
	if len(r.settings.child) > 0 || home != "" {
		if dir, err = os.MkdirTemp("", "stasis-"); err != nil {
			return nil, "", fmt.Errorf("no place for the configuration of the criu child: %w", err)
		}
	}
	if len(r.settings.child) > 0 {
		set[configVariable] = filepath.Join(dir, "criu.conf")
		text, err := r.childConfiguration(dir)
		if err == nil {
			err = os.WriteFile(set[configVariable], []byte(text), 0o600)
		}
		if err != nil {
			os.RemoveAll(dir)
			return nil, "", fmt.Errorf("the configuration of the criu child: %w", err)
		}
	}
	if home != "" {
		set["HOME"] = dir
	}
	return r.env.with(set, engineVariable, configVariable), dir, nil
}

// childConfiguration is the text of a swrk child's configuration file. A directory whose name the file cannot hold is
// named by a link in dir.
func (r *run) childConfiguration(dir string) (string, error) {
	s := r.settings
	var text strings.Builder
	for i, c := range s.child {
		value := c.value
		if c.name == "libdir" && criuconf.NeedsQuotes(value[0]) {
			target := value[0]
			if !filepath.IsAbs(target) { // CRIU looks for it in its work directory
				target = absolute(filepath.Join(cmp.Or(s.workDir, s.imagesDir), target))
			}
			link := filepath.Join(dir, fmt.Sprint("libdir", i))
			if err := os.Symlink(target, link); err != nil {
				return "", err
			}
			value = []string{link}
		}
		line, err := criuconf.Format(c.name, value...)
		if err != nil {
			return "", err
		}
		text.WriteString(line)
	}
	return text.String(), nil
}
