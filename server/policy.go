package server

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"syscall"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/rpctable"
)

// rules are the rules on who may ask for what, one switch each. All are on; a test switches one off to show that the
// attack which it is there for would succeed.
type rules struct {
	table       bool // the column Who of the table of options
	become      bool // the worker becomes the client
	rootIsRoot  bool // uid 0 is root only in our namespaces and with CAP_SYS_ADMIN
	peerPIDFD   bool // the client is held from its connect on
	takeFiles   bool // the client's descriptors are taken by pidfd_getfd, never opened by number
	ownTree     bool // the tree to be dumped is the client's own
	afterFreeze bool // … and still is once it is frozen
	translate   bool // a pid means what it means to the client
	logFile     bool // the log goes into the directory that was given
	confine     bool // what is restored stays under the client's limits
	apart       bool // root's workers alone have the service's socket, and serve root alone
}

func allRules() rules {
	return rules{true, true, true, true, true, true, true, true, true, true, true}
}

// refusal is an error that says no to a client.
func refusal(errno syscall.Errno, format string, args ...any) error {
	return &criu.Error{Kind: criu.ErrOptions, Errno: errno, Err: fmt.Errorf(format, args...), Op: "refused"}
}

// checkRequest refuses what a client may not ask for. All complaints come at once.
func (c *client) checkRequest(req *rpc.Req, r rules) error {
	var problems []error
	if req.KeepOpen != nil && *req.KeepOpen && !keepsOpen(req.Type) {
		problems = append(problems, fmt.Errorf("keep_open cannot be had with %v", req.Type))
	}
	if c.trust == untrusted && r.table {
		switch req.Type {
		case rpc.ReqPageServer, rpc.ReqPageServerChild:
			problems = append(problems, fmt.Errorf("a page server is only started for root: it %s", whyOf("ps")))
		}
	}
	if req.Opts != nil {
		problems = append(problems, c.checkOptions(req.Opts, r)...)
	}
	if len(problems) == 0 {
		return nil
	}
	return refusal(syscall.EPERM, "%w", joinLine(problems))
}

// joinLine joins errors into one line, since a response has room for one message.
func joinLine(list []error) error {
	if len(list) == 1 {
		return list[0]
	}
	texts := make([]string, len(list))
	for i, e := range list {
		texts[i] = e.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}

// keepsOpen reports whether CRIU stays on the conversation after such a request when it is asked to.
func keepsOpen(t rpc.ReqType) bool {
	switch t {
	case rpc.ReqPreDump: // by itself: for the next round
		return true
	case rpc.ReqPageServer, rpc.ReqPageServerChild, rpc.ReqCPUInfoDump, rpc.ReqCPUInfoCheck, rpc.ReqFeatureCheck, rpc.ReqVersion:
		return true
	}
	return false
}

func whyOf(option string) string {
	for _, row := range rpctable.Options() {
		if row.Name == option {
			return row.Why
		}
	}
	return ""
}

// checkOptions goes through the options that are set and looks into the table who may set them. An option that is sent
// with its default value, as some clients do, says nothing and is taken out of the request where it is not for this
// client.
func (c *client) checkOptions(o *rpc.Opts, r rules) (problems []error) {
	fields := reflect.ValueOf(o).Elem()
	for i, row := range rpctable.Options() {
		field := fields.Field(i)
		if field.IsZero() || c.may(row, r) {
			continue
		}
		if saysNothing(field, row) {
			field.SetZero()
			continue
		}
		switch row.Who {
		case rpctable.Direct:
			problems = append(problems, fmt.Errorf("%s is not allowed in a service: it %s", row.Name, row.Why))
		default:
			problems = append(problems, fmt.Errorf("%s may only be set by root: it %s", row.Name, row.Why))
		}
	}
	if len(o.Unknown) > 0 && c.trust == untrusted && r.table {
		problems = append(problems, errors.New("an option that this version does not know may only be set by root"))
	}
	if o.LogFile != nil && *o.LogFile == "" {
		o.LogFile = nil // as if it were not set
	}
	if r.logFile && o.LogFile != nil && !plainName(*o.LogFile) {
		problems = append(problems, fmt.Errorf("log_file %q is not the name of a file in the work directory", *o.LogFile))
	}
	return problems
}

// may reports whether the client may set an option. Who is not one of the table's values may not: default deny.
func (c *client) may(row rpctable.Field, r rules) bool {
	switch {
	case c.trust == direct:
		return true
	case row.Who == rpctable.Anyone:
		return true
	case row.Who == rpctable.Root:
		return c.trust == trusted || !r.table
	}
	return row.Who == rpctable.Direct && !r.table
}

// saysNothing reports whether an option has the value that its absence means.
func saysNothing(field reflect.Value, row rpctable.Field) bool {
	if field.Kind() != reflect.Pointer || field.Type().Elem().Kind() == reflect.Struct {
		return false
	}
	switch v := field.Elem(); v.Kind() {
	case reflect.Bool:
		return !v.Bool()
	case reflect.String:
		return v.String() == ""
	case reflect.Int32:
		if row.Shape == rpctable.PeerFD || row.Shape == rpctable.DirFD {
			return v.Int() < 0
		}
		return isDefault(v.Int(), row)
	case reflect.Uint32:
		return isDefault(int64(v.Uint()), row)
	}
	return false
}

func isDefault(n int64, row rpctable.Field) bool {
	if row.Default == "" {
		return n == 0
	}
	if row.Kind == rpctable.Enum {
		for _, e := range rpctable.Enums() {
			for _, v := range e.Values {
				if e.Name == row.Of && v.Name == row.Default {
					return n == int64(v.Num)
				}
			}
		}
		return false
	}
	d, err := strconv.ParseInt(row.Default, 0, 64)
	return err == nil && n == d
}

// plainName reports whether a name can only mean a file in the directory itself.
func plainName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}
