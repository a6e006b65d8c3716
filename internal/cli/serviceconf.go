package cli

import (
	"encoding/base64"
	"fmt"

	"stasis.example/criu/rpc"
)

// requestOptions are the options that configuration files set for requests which do not set them. What a request has no
// field for cannot be had that way, and is refused before there is any request.
func (s *settings) requestOptions() (*rpc.Opts, error) {
	for _, refused := range []struct {
		what string
		set  bool
	}{
		{"images-dir", s.imagesDir != ""}, {"work-dir", s.workDir != ""}, {"tree", s.pid != 0}, {"pidfile", s.pidfile != ""},
		{"action-script", len(s.scripts) > 0}, {"page-server", s.pageServer}, {"restore-sibling", s.sibling}, {"exec-cmd", s.execCmd},
		{"inherit-fd", len(s.inherit) > 0}, {"status-fd", s.statusFD != nil},
	} {
		if refused.set {
			return nil, &usageError{err: fmt.Errorf("the built-in engine takes no %s from a configuration file when it answers requests", refused.what), brief: true}
		}
	}
	if len(s.child) > 0 {
		return nil, &usageError{err: fmt.Errorf("the built-in engine does not have %s yet", s.child[0].flag), brief: true}
	}
	for _, name := range sortedKeys(s.program) {
		return nil, &usageError{err: fmt.Errorf("the built-in engine does not have %s yet", name), brief: true}
	}
	o := s.opts
	if s.levelSet {
		o.LogLevel = new(int32(s.level))
	}
	if s.logFile != "" {
		o.LogFile = &s.logFile
	}
	return &o, nil
}

// workerOptions are those of requests of a service, for the command line of a worker. The log, the socket and so on that the
// service was given are its own.
func (s *settings) workerOptions() (string, error) {
	own := *s
	own.logFile, own.workDir, own.pidfile, own.statusFD = "", "", "", nil
	o, err := own.requestOptions()
	if err != nil {
		return "", err
	}
	o.ImagesDirFD = -1
	return base64.RawURLEncoding.EncodeToString(o.Append(nil)), nil
}

func decodeOptions(text string) (*rpc.Opts, error) {
	encoded, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(encoded) == 0 {
		return nil, err
	}
	o := new(rpc.Opts)
	return o, o.Decode(encoded)
}

// readRequestConfig reads the configuration file that a request names. As with CRIU it counts more than the request, and
// one that is not there is passed over.
func (r *run) readRequestConfig(path string) (*rpc.Opts, error) {
	flags := newFlagSet()
	src := source{path: path}
	statements, err := readConfig(src)
	if err != nil {
		return nil, err
	}
	s := newSettings()
	for _, statement := range statements {
		if err := s.applyStatement(flags, src, statement); err != nil {
			return nil, err
		}
	}
	return s.requestOptions()
}
