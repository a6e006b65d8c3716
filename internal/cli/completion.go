package cli

import (
	"context"
	"fmt"
	"strings"

	"stasis.example/internal/getopt"
)

// completion prints a script that makes a shell complete this program's command lines.
func (r *run) completion(context.Context) error {
	switch shell := r.operand(); shell {
	case "bash":
		r.completeBash()
	case "zsh":
		r.completeZsh()
	case "fish":
		r.completeFish()
	case "":
		return &usageError{err: fmt.Errorf("completion is followed by the name of a shell: bash, zsh or fish"), brief: true}
	default:
		return &usageError{err: fmt.Errorf("there is no completion for %q; there is one for bash, zsh and fish", shell), brief: true}
	}
	return nil
}

// shown are the flags that a completion offers.
func (fs *flagSet) shown() []*flag {
	var list []*flag
	for _, f := range fs.flags {
		if !f.hidden {
			list = append(list, f)
		}
	}
	return list
}

func actionNames() []string {
	var names []string
	for _, a := range actions() {
		names = append(names, a.name)
	}
	return names
}

// valueKind is what a shell can offer for a flag's value: file, dir, pid, or words.
func (f *flag) valueKind() (kind string, words []string) {
	switch f.Long {
	case "images-dir", "work-dir", "prev-images-dir", "root", "libdir", "cgroup-yard", "freeze-cgroup":
		return "dir", nil
	case "tree":
		return "pid", nil
	case "manage-cgroups":
		return "", []string{"soft", "none", "props", "full", "strict", "ignore"}
	case "network-lock":
		return "", []string{"iptables", "nftables", "skip"}
	case "pre-dump-mode":
		return "", []string{"splice", "read"}
	case "file-validation":
		return "", []string{"filesize", "buildid"}
	case "image-io-mode":
		return "", []string{"writeback", "direct"}
	case "empty-ns":
		return "", []string{"net"}
	case "verbosity":
		return "", []string{"0", "1", "2", "3", "4"}
	case "cpu-cap":
		return "", []string{"cpu", "fpu", "ins", "all", "none"}
	}
	if f.value == "FILE" || f.value == "PATH" {
		return "file", nil
	}
	return "", nil
}

func (r *run) completeBash() {
	var flags, dirs, files []string
	cases := &strings.Builder{}
	for _, f := range r.flags.shown() {
		name := f.name()
		flags = append(flags, name)
		if f.Negatable {
			flags = append(flags, "--no-"+f.Long)
		}
		if f.Arg != getopt.Required {
			continue
		}
		kind, words := f.valueKind()
		switch {
		case kind == "dir":
			dirs = append(dirs, f.spellings()...)
		case kind == "file":
			files = append(files, f.spellings()...)
		case kind == "pid":
			fmt.Fprintf(cases, "\t%s) COMPREPLY=($(compgen -W \"$(cd /proc && echo [0-9]*)\" -- \"$cur\")); return;;\n", strings.Join(f.spellings(), "|"))
		case words != nil:
			fmt.Fprintf(cases, "\t%s) COMPREPLY=($(compgen -W %q -- \"$cur\")); return;;\n", strings.Join(f.spellings(), "|"), strings.Join(words, " "))
		default:
			fmt.Fprintf(cases, "\t%s) return;;\n", strings.Join(f.spellings(), "|"))
		}
	}
	fmt.Fprintf(r.Stdout, `# bash completion for stasis
_stasis() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} word action=
	COMPREPLY=()
	case $prev in
	%s) compopt -o filenames; COMPREPLY=($(compgen -d -- "$cur")); return;;
	%s) compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur")); return;;
%s	cpuinfo) COMPREPLY=($(compgen -W "dump check" -- "$cur")); return;;
	completion) COMPREPLY=($(compgen -W "bash zsh fish" -- "$cur")); return;;
	esac
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "%s" -- "$cur"))
		return
	fi
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		case $word in %s) action=$word;; esac
	done
	[[ $action ]] || COMPREPLY=($(compgen -W "%s" -- "$cur"))
}
complete -F _stasis stasis
`, strings.Join(dirs, "|"), strings.Join(files, "|"), cases, strings.Join(flags, " "),
		strings.Join(actionNames(), "|"), strings.Join(actionNames(), " "))
}

// spellings are the ways to write a flag.
func (f *flag) spellings() []string {
	names := []string{f.name()}
	if f.Short != 0 {
		names = append(names, "-"+string(f.Short))
	}
	return names
}

func (r *run) completeZsh() {
	fmt.Fprintln(r.Stdout, "#compdef stasis\n\n_stasis() {\n\tlocal -a actions\n\tactions=(")
	for _, a := range actions() {
		fmt.Fprintf(r.Stdout, "\t\t%s\n", quoteShell(a.name+":"+a.help))
	}
	fmt.Fprintln(r.Stdout, "\t)\n\t_arguments -S \\")
	for _, f := range r.flags.shown() {
		help := strings.NewReplacer("[", `\[`, "]", `\]`, ":", `\:`).Replace(f.help)
		for _, name := range f.spellings() {
			arg := ""
			if f.Arg != getopt.None {
				kind, words := f.valueKind()
				does := map[string]string{"dir": "_files -/", "file": "_files", "pid": "_pids"}[kind]
				if words != nil {
					does = "(" + strings.Join(words, " ") + ")"
				}
				separator := ":"
				if f.Arg == getopt.Optional {
					separator = "::"
				}
				arg = separator + strings.ToLower(strings.NewReplacer(":", " ", "[", "", "]", "").Replace(f.value)) + ":" + does
				if strings.HasPrefix(name, "--") {
					name += "="
				} else {
					name += "+"
				}
				if f.Arg == getopt.Optional {
					name = strings.TrimSuffix(strings.TrimSuffix(name, "="), "+") + "-"
					if strings.HasPrefix(name, "--") {
						name = strings.TrimSuffix(name, "-") + "=-"
					}
				}
			}
			fmt.Fprintf(r.Stdout, "\t\t%s \\\n", quoteShell("*"+name+"["+help+"]"+arg))
		}
		if f.Negatable {
			fmt.Fprintf(r.Stdout, "\t\t%s \\\n", quoteShell("*--no-"+f.Long+"[not: "+help+"]"))
		}
	}
	fmt.Fprintln(r.Stdout, "\t\t'1:action:{_describe action actions}' \\\n\t\t'*::word:_default'\n}\n\n_stasis \"$@\"")
}

func (r *run) completeFish() {
	fmt.Fprintln(r.Stdout, "# fish completion for stasis\ncomplete -c stasis -f")
	seen := "__fish_seen_subcommand_from " + strings.Join(actionNames(), " ")
	for _, a := range actions() {
		fmt.Fprintf(r.Stdout, "complete -c stasis -n 'not %s' -a %s -d %s\n", seen, a.name, quoteFish(a.help))
	}
	fmt.Fprintln(r.Stdout, "complete -c stasis -n '__fish_seen_subcommand_from cpuinfo' -a 'dump check'")
	fmt.Fprintln(r.Stdout, "complete -c stasis -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'")
	for _, f := range r.flags.shown() {
		line := "complete -c stasis -l " + f.Long
		if f.Short != 0 {
			line += " -s " + string(f.Short)
		}
		if f.Arg == getopt.Required {
			line += " -r"
		}
		kind, words := f.valueKind()
		switch {
		case words != nil:
			line += " -a " + quoteFish(strings.Join(words, " "))
		case kind == "dir":
			line += " -a '(__fish_complete_directories)'"
		case kind == "file":
			line += " -F"
		case kind == "pid":
			line += " -a '(__fish_complete_pids)'"
		}
		fmt.Fprintln(r.Stdout, line+" -d "+quoteFish(f.help))
		if f.Negatable {
			fmt.Fprintf(r.Stdout, "complete -c stasis -l no-%s -d %s\n", f.Long, quoteFish("not: "+f.help))
		}
	}
}

func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func quoteFish(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}
