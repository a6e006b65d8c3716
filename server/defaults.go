package server

import (
	"reflect"

	"stasis.example/criu/rpc"
	"stasis.example/internal/rpctable"
)

// configure fills in, for an engine in this process, what configuration files say: what the administrator wants where the
// request is silent, and over it what the file says that the request names. A peer that is a process of its own reads them
// by itself.
func (v *conversation) configure(o *rpc.Opts) error {
	if v.Defaults != nil {
		overlay(o, v.Defaults, func(row rpctable.Field, field reflect.Value) bool {
			return field.IsZero() && v.client.may(row, *v.rules)
		})
	}
	if o.ConfigFile == nil || *o.ConfigFile == "" || v.ReadConfig == nil {
		return nil
	}
	// Only root, or the client's own swrk, comes this far with one.
	over, err := v.ReadConfig(*o.ConfigFile)
	if err != nil {
		return refusal(errnoOf(err), "config_file: %w", err)
	}
	o.ConfigFile = nil
	overlay(o, over, func(rpctable.Field, reflect.Value) bool { return true })
	return nil
}

// overlay sets the options that are set in another request, where that is wanted. Directories and processes are never
// among them.
func overlay(o, with *rpc.Opts, wanted func(row rpctable.Field, field reflect.Value) bool) {
	fields, from := reflect.ValueOf(o).Elem(), reflect.ValueOf(with).Elem()
	for i, row := range rpctable.Options() {
		switch row.Name {
		case "images_dir_fd", "work_dir_fd", "pid", "notify_scripts":
			continue
		}
		if f := from.Field(i); !f.IsZero() && wanted(row, fields.Field(i)) {
			fields.Field(i).Set(f)
		}
	}
}
