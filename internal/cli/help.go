package cli

import (
	"fmt"
	"slices"
	"strings"

	"stasis.example/internal/getopt"
	"stasis.example/internal/rpctable"
)

// usage is the short form of the help text.
func (r *run) usage() string {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: %s ACTION [OPTION ...]\n\n", r.name)
	for _, a := range actions() {
		if a.own && r.asCRIU {
			continue
		}
		fmt.Fprintf(&b, "  %-25s %s\n", strings.TrimSpace(a.name+" "+a.args), a.help)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// help prints the help text, or an action's.
func (r *run) help(operands []getopt.Operand) error {
	if len(operands) > 0 {
		a, ok := findAction(operands[0].Text)
		if !ok || a.own && r.asCRIU {
			return &usageError{err: fmt.Errorf("there is no action %q", operands[0].Text), list: true}
		}
		if a.name != "help" {
			r.helpAction(a)
			return nil
		}
	}
	fmt.Fprintf(r.Stdout, `%s freezes running processes to files and brings them back.

%s

Options may stand before or behind the action. Those without a value can be taken back by --no-NAME where that is
shown; long ones can be shortened as long as they stay unique.

`, r.name, r.usage())
	for _, g := range r.flags.groups() {
		fmt.Fprintf(r.Stdout, "%s:\n", g.title)
		r.printFlags(g.flags)
		fmt.Fprintln(r.Stdout)
	}
	fmt.Fprintln(r.Stdout, "Configuration files: /etc/criu/default.conf, ~/.criu/default.conf, $CRIU_CONFIG_FILE; see stasis(1).")
	return nil
}

func (r *run) helpAction(a action) {
	fmt.Fprintf(r.Stdout, "usage: %s %s [OPTION ...]\n\n%s.\n\n", r.name, strings.TrimSpace(a.name+" "+a.args), sentence(a.help))
	var flags []*flag
	for _, f := range r.flags.flags {
		if f.isFor(a.name) {
			flags = append(flags, f)
		}
	}
	r.printFlags(flags)
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

type flagGroup struct {
	title string
	flags []*flag
}

// groups are the flags in groups for people, by the function of flagtable.go that they stand in.
func (fs *flagSet) groups() []flagGroup {
	var groups []flagGroup
	next := 0
	for _, g := range []struct {
		title string
		rows  []flag
	}{
		{"General", generalFlags()}, {"The tree", treeFlags()}, {"Files and resources", resourceFlags()}, {"TCP", networkFlags()},
		{"Cgroups", cgroupFlags()}, {"Mounts and namespaces", namespaceFlags()}, {"Memory", memoryFlags()},
		{"Page server", serverFlags()}, {"Check", checkFlags()}, {"", deprecatedFlags()}, {"stasis' own, to be written in full", append(ownFlags(), serviceFlags()...)},
	} {
		group := flagGroup{title: g.title, flags: fs.flags[next : next+len(g.rows)]}
		next += len(g.rows)
		if g.title != "" {
			groups = append(groups, group)
		}
	}
	return groups
}

func (r *run) printFlags(flags []*flag) {
	const column = 34
	for _, f := range flags {
		if f.hidden || f.own && r.asCRIU {
			continue
		}
		left := f.syntax()
		if len(left) < column-1 {
			fmt.Fprintf(r.Stdout, "%-*s%s\n", column, left, f.help)
		} else {
			fmt.Fprintf(r.Stdout, "%s\n%*s%s\n", left, column, "", f.help)
		}
	}
}

// syntax is how a flag is written, for a help text.
func (f *flag) syntax() string {
	text := "      "
	if f.Short != 0 {
		text = fmt.Sprintf("  -%c, ", f.Short)
	}
	name := "--" + f.Long
	if f.Negatable {
		name = "--[no-]" + f.Long
	}
	switch f.Arg {
	case getopt.Required:
		name += " " + f.value
	case getopt.Optional:
		name += "[=" + f.value + "]"
	}
	return text + name
}

// isFor reports whether a flag is of use for an action: by its own word, or by what the table of the RPC says of its
// fields.
func (f *flag) isFor(name string) bool {
	if f.hidden {
		return false
	}
	if name == "plan" {
		return slices.Contains([]string{"images-dir", "shell-job", "inherit-fd", "json", "help"}, f.Long)
	}
	if f.actions != nil {
		return slices.Contains(f.actions, name)
	}
	a, _ := findAction(name)
	if len(f.fields) == 0 || !a.peer {
		general := []string{"config", "no-default-config", "help", "version", "engine", "json", "quiet", "libdir"}
		switch {
		case f.Long == "help":
			return true
		case name == "version" || name == "demo":
			return f.own && (name == "version" || f.Long == "engine")
		}
		return a.peer && slices.Contains(general, f.Long)
	}
	op, ok := map[string]rpctable.Op{
		"dump": rpctable.Dump, "pre-dump": rpctable.PreDump, "restore": rpctable.Restore, "check": rpctable.Check,
		"page-server": rpctable.PageServer, "cpuinfo": rpctable.CPUInfo,
		"lazy-pages": rpctable.PageServer, "dedup": rpctable.Check,
	}[name]
	if !ok {
		return false
	}
	for _, row := range rpctable.Options() {
		if slices.Contains(f.fields, row.Name) && row.Ops.Has(op) {
			return true
		}
	}
	return false
}
