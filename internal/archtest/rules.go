package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A rule looks at the house and names every place that breaks it.
type rule struct {
	name  string
	check func(*house) []string
}

// rules are the rules that need nothing but the sources.
var rules = []rule{
	{"imports", checkImports},
	{"unsafe", checkUnsafe},
	{"system calls", checkSyscalls},
	{"errors", checkErrorComparisons},
	{"init", checkInit},
	{"skips", checkSkips},
	{"package comments", checkPackageComments},
	{"comments", checkExportedComments},
	{"length", checkLength},
	{"dependencies", checkDependencies},
}

// maxLines is how long a file that a person wrote may be.
const maxLines = 700

// testImports is what tests may import beside what their package may.
var testImports = []string{"internal/testkit", "criu/criutest", "engine", "image/internal/...", "internal/rpctable"}

func checkImports(h *house) (broken []string) {
	for _, p := range h.packages {
		r, found := h.rowOf(p.dir)
		if !found {
			broken = append(broken, fmt.Sprintf("%s: the table of packages in ARCHITECTURE.md has no row for it", p.dir))
			continue
		}
		for _, f := range p.files {
			for imported, pos := range f.imports() {
				if why := h.mayNotImport(p, r, f, imported); why != "" {
					broken = append(broken, fmt.Sprintf("%s: imports %s, which %s", f.at(pos), imported, why))
				}
			}
		}
	}
	return broken
}

// mayNotImport says why a file may not import a package; it is empty when it may.
func (h *house) mayNotImport(p *pkg, r row, f *file, imported string) string {
	if imported == "C" {
		return "needs cgo"
	}
	own, isOwn := strings.CutPrefix(imported, h.module+"/")
	if isOwn || imported == h.module {
		if own == p.dir || matchesAny(r.own, own) || f.test && matchesAny(testImports, own) {
			return ""
		}
		return "is not in its row of the table in ARCHITECTURE.md"
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return "" // the standard library
	}
	if f.test && slices.ContainsFunc(h.requires, func(m string) bool { return matches(m+"/...", imported) }) {
		return ""
	}
	for _, other := range r.others {
		if matches(otherImports[other], imported) {
			return ""
		}
	}
	return "is not in its row of the table in ARCHITECTURE.md"
}

func checkUnsafe(h *house) (broken []string) {
	h.eachFile(func(f *file) {
		name := strings.TrimSuffix(strings.TrimSuffix(f.path, ".go"), "_test")
		if pos, imported := f.imports()["unsafe"]; imported && !strings.HasSuffix(name, "_unsafe") {
			broken = append(broken, f.at(pos)+": imports unsafe, and is not called *_unsafe.go")
		}
		for _, group := range f.syntax.Comments {
			for _, comment := range group.List {
				if strings.HasPrefix(comment.Text, "//go:linkname") {
					broken = append(broken, f.at(comment.Pos())+": go:linkname")
				}
			}
		}
	})
	return broken
}

var (
	rawSyscall = regexp.MustCompile(`^(Raw)?Syscall(6|9|NoError)?$|^RawSyscall6?NoError$`)
	ptraceCall = regexp.MustCompile(`^Ptrace[A-Z]`)
)

func checkSyscalls(h *house) (broken []string) {
	for _, p := range h.packages {
		for _, f := range p.files {
			for _, s := range f.kernelNames() {
				switch {
				case rawSyscall.MatchString(s.Sel.Name) && p.dir != "internal/linux":
					broken = append(broken, fmt.Sprintf("%s: %s outside internal/linux", f.at(s.Pos()), s.Sel.Name))
				// A test may be the tracer that is in the way.
				case ptraceCall.MatchString(s.Sel.Name) && !f.test && !matches("engine/internal/ptrace/...", p.dir) && p.dir != "internal/linux":
					broken = append(broken, fmt.Sprintf("%s: %s outside engine/internal/ptrace", f.at(s.Pos()), s.Sel.Name))
				}
			}
		}
	}
	return broken
}

// kernelNames returns the uses of what packages unix and syscall export.
func (f *file) kernelNames() (uses []*ast.SelectorExpr) {
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && isKernelPackage(s.X) {
			uses = append(uses, s)
		}
		return true
	})
	return uses
}

func isKernelPackage(x ast.Expr) bool {
	ident, ok := x.(*ast.Ident)
	return ok && (ident.Name == "unix" || ident.Name == "syscall")
}

var (
	errnoName = regexp.MustCompile(`^E[A-Z0-9]+$`)
	errorName = regexp.MustCompile(`^(Err[A-Z]\w*|EOF)$`)
)

// isErrorValue reports whether an expression looks like an errno or one of the error values that packages export.
func isErrorValue(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return errorName.MatchString(x.Name) && x.Name != "EOF"
	case *ast.SelectorExpr:
		return errorName.MatchString(x.Sel.Name) || isKernelPackage(x.X) && errnoName.MatchString(x.Sel.Name)
	}
	return false
}

// isErrno reports whether an expression is called an errno, which is a number and not an error that may be wrapped.
func isErrno(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return strings.EqualFold(x.Name, "errno")
	case *ast.SelectorExpr:
		return strings.EqualFold(x.Sel.Name, "errno")
	}
	return false
}

func checkErrorComparisons(h *house) (broken []string) {
	h.eachFile(func(f *file) {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				// A method Is is what errors.Is asks, and the one place to compare.
				return n.Recv == nil || n.Name.Name != "Is"
			case *ast.BinaryExpr:
				if (n.Op == token.EQL || n.Op == token.NEQ) && (isErrorValue(n.X) && !isErrno(n.Y) || isErrorValue(n.Y) && !isErrno(n.X)) {
					broken = append(broken, f.at(n.Pos())+": compares an error with "+n.Op.String())
				}
			case *ast.SwitchStmt:
				if n.Tag == nil || isErrno(n.Tag) {
					break
				}
				for _, clause := range n.Body.List {
					if slices.ContainsFunc(clause.(*ast.CaseClause).List, isErrorValue) {
						broken = append(broken, f.at(clause.Pos())+": compares an error by switch")
					}
				}
			}
			return true
		})
	})
	return broken
}

func checkInit(h *house) (broken []string) {
	h.eachFile(func(f *file) {
		for _, decl := range f.syntax.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" && !onlyLocksThread(fn) {
				broken = append(broken, f.at(fn.Pos())+": func init")
			}
		}
	})
	return broken
}

// onlyLocksThread reports whether a function does nothing but runtime.LockOSThread: what keeps the main goroutine on the
// main thread, and has to be done in init.
func onlyLocksThread(fn *ast.FuncDecl) bool {
	if len(fn.Body.List) != 1 {
		return false
	}
	statement, ok := fn.Body.List[0].(*ast.ExprStmt)
	if !ok {
		return false
	}
	call, ok := statement.X.(*ast.CallExpr)
	if !ok {
		return false
	}
	s, ok := call.Fun.(*ast.SelectorExpr)
	return ok && s.Sel.Name == "LockOSThread"
}

func checkSkips(h *house) (broken []string) {
	for _, p := range h.packages {
		if p.dir == "internal/testkit" {
			continue
		}
		for _, f := range p.files {
			if _, tests := f.imports()["testing"]; !tests {
				continue
			}
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if s, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
					broken = append(broken, f.at(s.Pos())+": "+s.Sel.Name+": only testkit.Need skips tests")
				}
				return true
			})
		}
	}
	return broken
}

func checkPackageComments(h *house) (broken []string) {
	for _, p := range h.packages {
		var commented []string
		code := false
		for _, f := range p.files {
			if f.test {
				continue
			}
			code = true
			if f.syntax.Doc != nil {
				commented = append(commented, path.Base(f.path))
			}
		}
		if code && len(commented) != 1 {
			broken = append(broken, fmt.Sprintf("%s: %d package comments: %s", p.dir, len(commented), strings.Join(commented, " ")))
		}
	}
	return broken
}

// isPublic reports whether a package is one that others import.
func isPublic(p *pkg) bool {
	elements := strings.Split(p.dir, "/")
	switch elements[0] {
	case ".", "cmd", "examples", "internal", "libcriu", "test", "tools":
		return false
	}
	return !slices.Contains(elements, "internal") && p.files[0].syntax.Name.Name != "main"
}

func checkExportedComments(h *house) (broken []string) {
	for _, p := range h.packages {
		if !isPublic(p) {
			continue
		}
		for _, f := range p.files {
			if f.test {
				continue
			}
			for _, decl := range f.syntax.Decls {
				for _, name := range uncommented(decl) {
					broken = append(broken, fmt.Sprintf("%s: %s has no comment", f.at(name.Pos()), name.Name))
				}
			}
		}
	}
	return broken
}

// selfEvident are methods that say the same whatever they belong to.
var selfEvident = []string{"Error", "String", "Unwrap"}

// uncommented returns the exported names that a declaration introduces without a comment. In a group of constants or
// variables the group's comment will do, or that of the ones above: in an enumeration not every name needs one.
func uncommented(decl ast.Decl) (names []*ast.Ident) {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if decl.Recv != nil && (!isExportedReceiver(decl.Recv) || slices.Contains(selfEvident, decl.Name.Name)) {
			break
		}
		if decl.Name.IsExported() && decl.Doc == nil {
			names = append(names, decl.Name)
		}
	case *ast.GenDecl:
		commented := decl.Doc != nil
		for _, spec := range decl.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && decl.Doc == nil && spec.Doc == nil {
					names = append(names, spec.Name)
				}
			case *ast.ValueSpec:
				commented = commented || spec.Doc != nil || spec.Comment != nil
				for _, name := range spec.Names {
					if name.IsExported() && !commented {
						names = append(names, name)
					}
				}
			}
		}
	}
	return names
}

func isExportedReceiver(recv *ast.FieldList) bool {
	x := recv.List[0].Type
	for {
		switch t := x.(type) {
		case *ast.StarExpr:
			x = t.X
		case *ast.IndexExpr:
			x = t.X
		case *ast.Ident:
			return t.IsExported()
		default:
			return false
		}
	}
}

func checkLength(h *house) (broken []string) {
	h.eachFile(func(f *file) {
		if !f.generated && f.lines > maxLines {
			broken = append(broken, fmt.Sprintf("%s: %d lines, more than %d", f.path, f.lines, maxLines))
		}
	})
	return broken
}

func checkDependencies(h *house) (broken []string) {
	for _, module := range h.requires {
		if !strings.Contains(h.document, "| `"+module+"` |") {
			broken = append(broken, "go.mod: ARCHITECTURE.md does not say why "+module+" is required")
		}
	}
	return broken
}

func (h *house) eachFile(look func(*file)) {
	for _, p := range h.packages {
		for _, f := range p.files {
			look(f)
		}
	}
}
