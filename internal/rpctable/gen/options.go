package main

import (
	"bytes"
	"strings"

	"stasis.example/internal/rpctable"
)

// operation is one option struct of package criu.
type operation struct {
	op     rpctable.Op
	name   string // the Go type is name + Options
	doc    string
	notify bool
}

var operations = []operation{
	{rpctable.Dump, "Dump", "are the options of a dump. PID, and one of ImagesDir, ImagesDirFile and PeerImagesDir, must be set;\n// [Client.DumpSelf] takes no PID.", true},
	{rpctable.PreDump, "PreDump", "are the options of one pre-dump. PID, and one of ImagesDir, ImagesDirFile and PeerImagesDir, must be set.", true},
	{rpctable.Restore, "Restore", "are the options of a restore. One of ImagesDir, ImagesDirFile and PeerImagesDir must be set.", true},
	{rpctable.PageServer, "PageServer", "are the options of a page server. One of ImagesDir, ImagesDirFile and PeerImagesDir must be set.", false},
	{rpctable.CPUInfo, "CPUInfo", "are the options of the two cpuinfo requests. One of ImagesDir, ImagesDirFile and PeerImagesDir must be set.", false},
	{rpctable.Check, "Check", "are the options of a check. Without a directory the log goes to one that is removed afterwards; what it\n// says of a failure is in the error.", false},
}

// optionType is the Go type of the option in package criu.
func optionType(f rpctable.Field) string {
	switch f.Shape {
	case rpctable.PeerFD:
		return "*os.File"
	case rpctable.Duration:
		return "time.Duration"
	case rpctable.Bytes:
		return "int64"
	case rpctable.Word:
		return enumOf(f.Of).Go
	case rpctable.CPUCap:
		return "CPUCap"
	case rpctable.LogLevel:
		return "LogLevel"
	case rpctable.Namespace:
		return "Namespaces"
	case rpctable.Struct:
		return "*PageServerAddr"
	case rpctable.Keyed:
		return map[string]string{"veths": "[]Veth", "ext_mnt": "[]ExtMount", "cg_root": "[]CgroupRoot", "inherit_fd": "[]InheritFile",
			"unix_sk_ino": "[]uint32", "join_ns": "[]JoinNamespace"}[f.Name]
	}
	switch {
	case f.Kind == rpctable.String && f.Card == rpctable.Repeated:
		return "[]string"
	case f.Kind == rpctable.Int32:
		return "int"
	}
	return scalar(f)
}

// source says where the option stands elsewhere, for the end of its comment.
func source(f rpctable.Field) string {
	var parts []string
	if f.Flag != "" {
		parts = append(parts, "criu --"+f.Flag)
	}
	rpc := "RPC " + f.Name
	if f.Since != "" {
		rpc += ", since CRIU " + f.Since
	}
	parts = append(parts, rpc)
	return strings.Join(parts, "; ")
}

func sentence(help string) string { return strings.ToUpper(help[:1]) + help[1:] }

func optionStructs(b *bytes.Buffer) {
	p(b, header+"package criu\n\nimport (\n\t\"context\"\n\t\"os\"\n\t\"time\"\n\n\t\"stasis.example/criu/rpc\"\n)")
	for _, o := range operations {
		p(b, "\n// %sOptions %s", o.name, o.doc)
		p(b, "//\n// The zero value of every field is the peer's default.")
		p(b, "type %sOptions struct {", o.name)
		for _, f := range rpctable.Options() {
			if f.Shape == rpctable.Implicit || !f.Ops.Has(o.op) {
				continue
			}
			p(b, "\t// %s (%s).", sentence(f.Help), source(f))
			if f.Deprecated != "" {
				p(b, "\t//\n\t// Deprecated: use %s.", f.Deprecated)
			}
			if f.Shape == rpctable.DirFD {
				p(b, "\t%s string", f.Go)
				p(b, "\t// The same as %s, as an open directory. It stays the caller's.", f.Go)
				p(b, "\t%sFile *os.File\n", f.Go)
				continue
			}
			p(b, "\t%s %s\n", f.Go, optionType(f))
		}
		if o.notify {
			p(b, "\t// Notify, where set, is called for each notification, one at a time, before the peer goes on. An error from it is")
			p(b, "\t// sent to the peer as a refusal, which makes the operation fail, and comes back in the error.")
			p(b, "\tNotify func(context.Context, *Event) error\n")
		}
		p(b, "\t// Raw holds fields to send as they are: an explicit false, a zero that differs from the default, a field that has no")
		p(b, "\t// name here. A field that Raw sets and another option sets too is refused.")
		p(b, "\tRaw rpc.Opts\n}")
	}
}

func optionEncoders(b *bytes.Buffer) {
	p(b, header+"package criu\n\nimport \"stasis.example/criu/rpc\"")
	for _, o := range operations {
		p(b, "\nfunc (o *%sOptions) encode(e *encoder) {\n\tm := e.opts", o.name)
		for _, f := range rpctable.Options() {
			if f.Shape == rpctable.Implicit || !f.Ops.Has(o.op) {
				continue
			}
			encodeOption(b, f)
		}
		p(b, "\te.raw(&o.Raw)\n}")
	}
	rawMerge(b)
}

func encodeOption(b *bytes.Buffer, f rpctable.Field) {
	dst, src := "m."+goField(f.Name), "o."+f.Go
	switch f.Shape {
	case rpctable.DirFD:
		if f.Card == rpctable.Required {
			p(b, "\te.imagesDir(o.%s, o.%sFile, o.PeerImagesDir)", f.Go, f.Go)
		} else {
			p(b, "\te.workDir(o.%s, o.%sFile)", f.Go, f.Go)
		}
	case rpctable.Keyed, rpctable.Struct:
		method := strings.ToLower(f.Go[:1]) + f.Go[1:]
		p(b, "\te.%s(%s)", method, src)
	case rpctable.PeerFD:
		p(b, "\te.peerFile(&%s, %s)", dst, src)
	case rpctable.Duration:
		p(b, "\te.seconds(&%s, %q, %s)", dst, f.Go, src)
	case rpctable.Bytes:
		p(b, "\te.size(&%s, %q, %s)", dst, f.Go, src)
	case rpctable.Word:
		p(b, "\tword(e, &%s, %q, %s, %s)", dst, f.Go, src, wordsVar(f))
	case rpctable.CPUCap:
		p(b, "\te.cpuCap(&%s, %s)", dst, src)
	case rpctable.LogLevel:
		p(b, "\te.logLevel(&%s, %s)", dst, src)
	case rpctable.Namespace:
		p(b, "\te.namespaces(&%s, %q, %s)", dst, f.Go, src)
	default:
		switch {
		case f.Name == "images_dir":
			// sent by imagesDir above: the three forms exclude one another
		case f.Card == rpctable.Repeated:
			p(b, "\te.strings(&%s, %q, %s)", dst, f.Go, src)
		case f.Kind == rpctable.Bool:
			p(b, "\te.bool(&%s, %s)", dst, src)
		case f.Kind == rpctable.String:
			p(b, "\te.string(&%s, %q, %s)", dst, f.Go, src)
		case f.Kind == rpctable.Int32:
			p(b, "\te.int(&%s, %q, %s)", dst, f.Go, src)
		case f.Kind == rpctable.Uint32:
			p(b, "\te.uint(&%s, %s)", dst, src)
		}
	}
}

// rawMerge writes the merging of Raw: one line a field.
func rawMerge(b *bytes.Buffer) {
	p(b, "\n// mergeRaw puts the fields that raw sets into m and reports those that m has already.")
	p(b, "func mergeRaw(m, raw *rpc.Opts, clash func(field string)) {")
	for _, f := range rpctable.Options() {
		name := goField(f.Name)
		switch {
		case f.Card == rpctable.Required:
			p(b, "\tif raw.%s != 0 {\n\t\tclash(%q)\n\t}", name, f.Name)
		case f.Card == rpctable.Repeated:
			p(b, "\tif raw.%s != nil {\n\t\tif m.%s != nil {\n\t\t\tclash(%q)\n\t\t}\n\t\tm.%s = raw.%s\n\t}", name, name, f.Name, name, name)
		default:
			p(b, "\tif raw.%s != nil {\n\t\tif m.%s != nil {\n\t\t\tclash(%q)\n\t\t}\n\t\tm.%s = raw.%s\n\t}", name, name, f.Name, name, name)
		}
	}
	p(b, "\tm.Unknown = append(m.Unknown, raw.Unknown...)\n}")
}

func wordsVar(f rpctable.Field) string {
	e := enumOf(f.Of).Go
	return strings.ToLower(e[:1]) + e[1:] + "Words"
}

// words writes the enums of package criu: words, so that a value reads as it does on the command line and the zero value
// can mean the peer's default although the wire's zero means something.
func words(b *bytes.Buffer) {
	p(b, header+"package criu\n\nimport \"stasis.example/criu/rpc\"")
	for _, f := range rpctable.Options() {
		if f.Shape != rpctable.Word {
			continue
		}
		e := enumOf(f.Of)
		p(b, "\n// %s %s. The zero value is the peer's default.", e.Go, e.Help)
		p(b, "type %s string\n\nconst (", e.Go)
		for _, v := range e.Values {
			if v.Word != "" {
				p(b, "\t%s%s %s = %q // %s%s", e.Go, v.Go, e.Go, v.Word, v.Help, since(v.Since))
			}
		}
		p(b, ")\n\nvar %s = []wordValue[%s, rpc.%s]{", wordsVar(f), e.Go, e.Go)
		for _, v := range e.Values {
			if v.Word != "" {
				p(b, "\t{%s%s, rpc.%s%s},", e.Go, v.Go, e.Go, v.Go)
			}
		}
		p(b, "}")
	}
}

var opNames = []struct {
	op   rpctable.Op
	name string
}{
	{rpctable.Dump, "dump"}, {rpctable.PreDump, "pre-dump"}, {rpctable.Restore, "restore"},
	{rpctable.PageServer, "page-server"}, {rpctable.CPUInfo, "cpuinfo"}, {rpctable.Check, "check"},
}

func optionsPage(b *bytes.Buffer) {
	p(b, "<!-- Generated by internal/rpctable/gen from the RPC table. Do not edit. -->\n")
	p(b, "# Options\n")
	p(b, "Every field of CRIU's `criu_opts`, with its name in each of the interfaces. *Since* is the first CRIU release in which it was")
	p(b, "seen; *who* says whose requests a service honours it for: anyone's, root's, or only those of a client that started the peer")
	p(b, "itself (direct). A C name in *italics* is an extension of this project's libcriu, which upstream's 4.3 lacks.\n")
	p(b, "| no. | RPC field | Go | C | command line | operations | who | since | meaning |")
	p(b, "|---|---|---|---|---|---|---|---|---|")
	for _, f := range rpctable.Options() {
		var ops []string
		for _, o := range opNames {
			if f.Ops.Has(o.op) {
				ops = append(ops, o.name)
			}
		}
		list := strings.Join(ops, ", ")
		if f.Ops == rpctable.Every {
			list = "all"
		}
		flag := ""
		if f.Flag != "" {
			flag = "`--" + f.Flag + "`"
			if f.Short != "" {
				flag += ", `-" + f.Short + "`"
			}
		}
		goName := "`" + f.Go + "`"
		switch f.Shape {
		case rpctable.Implicit:
			goName = "(set by the client)"
		case rpctable.DirFD:
			goName = "`" + f.Go + "`, `" + f.Go + "File`"
		}
		c := "`criu_" + f.C + "`"
		switch {
		case f.CForm == rpctable.CNone:
			c = "by `criu_" + f.C + "`"
		case f.CSince == "":
			c = "*" + c + "*"
		}
		help := sentence(f.Help)
		if f.Deprecated != "" {
			help += ". Deprecated: use " + f.Deprecated
		}
		if f.Why != "" {
			help += ". (" + sentence(f.Why) + ")"
		}
		who := map[rpctable.Who]string{rpctable.Anyone: "anyone", rpctable.Root: "root", rpctable.Direct: "direct"}[f.Who]
		p(b, "| %d | `%s` | %s | %s | %s | %s | %s | %s | %s |", f.Num, f.Name, goName, c, flag, list, who, f.Since, help)
	}
}
