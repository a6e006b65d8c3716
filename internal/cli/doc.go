// Package cli is the command line of stasis, which is also criu's: cmd/stasis calls [Program.Run] and does nothing else.
//
// A command line goes through four steps, each in files of its own and the first three without touching a process:
//
//	words → settings    flags.go, flagtable.go, values.go, sources.go: configuration files and words, in CRIU's order
//	settings → engine   engine.go: which peer; what it cannot be asked by RPC is handed on or refused by name
//	settings → request  request.go: the options of package criu
//	request → answer    command_*.go, with notify.go (action scripts, pidfile), progress.go, report.go
//
// What CRIU's command line can do but its RPC cannot is done here (pidfile, action scripts, restoring in the foreground,
// --exec-cmd), given to a swrk child in a configuration file, or done by executing the criu program itself; the table
// in flagtable.go says which for every flag.
//
// Called by the name criu the program is a drop-in for it: messages that scripts look for are criu's, nothing else is
// printed, and a restore in the foreground ends with 0 however the restored task ended.
package cli
