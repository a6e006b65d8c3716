package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A house is what the rules are about: the sources of one module.
type house struct {
	module   string   // its path
	requires []string // the modules that go.mod requires directly
	document string   // ARCHITECTURE.md
	table    []row    // the table of packages in it
	packages []*pkg
}

// A pkg is a directory with Go files, whatever they build on.
type pkg struct {
	dir   string // from the root of the module, "." for the root
	files []*file
}

type file struct {
	path      string
	syntax    *ast.File
	fset      *token.FileSet
	lines     int
	test      bool
	generated bool
}

func (f *file) at(pos token.Pos) string {
	return fmt.Sprintf("%s:%d", f.path, f.fset.Position(pos).Line)
}

// imports returns the paths that the file imports, each with its place.
func (f *file) imports() map[string]token.Pos {
	paths := make(map[string]token.Pos)
	for _, spec := range f.syntax.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths[p] = spec.Pos()
		}
	}
	return paths
}

// readHouse reads the sources of the module at the root of a file system.
func readHouse(root fs.FS) (*house, error) {
	h := &house{}
	if err := h.readGoMod(root); err != nil {
		return nil, err
	}
	document, err := fs.ReadFile(root, "ARCHITECTURE.md")
	if err != nil {
		return nil, err
	}
	h.document = string(document)
	if h.table, err = parseTable(h.document); err != nil {
		return nil, err
	}
	byDir := make(map[string]*pkg)
	err = fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if skipDir(root, name) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		f, err := readFile(root, name)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		if byDir[dir] == nil {
			byDir[dir] = &pkg{dir: dir}
			h.packages = append(h.packages, byDir[dir])
		}
		byDir[dir].files = append(byDir[dir].files, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(h.packages, func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
	return h, nil
}

// skipDir reports whether a directory is none of the module's: as the go command sees it, and bin, where builds go.
func skipDir(root fs.FS, dir string) bool {
	if dir == "." {
		return false
	}
	base := path.Base(dir)
	if dir == "bin" || base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return true
	}
	_, err := fs.Stat(root, path.Join(dir, "go.mod"))
	return err == nil
}

func readFile(root fs.FS, name string) (*file, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	syntax, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &file{
		path:      name,
		syntax:    syntax,
		fset:      fset,
		lines:     strings.Count(string(text), "\n"),
		test:      strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(syntax),
	}, nil
}

// readGoMod takes from go.mod what the rules need: the module's path and its direct requirements.
func (h *house) readGoMod(root fs.FS) error {
	text, err := fs.ReadFile(root, "go.mod")
	if err != nil {
		return err
	}
	block := false
	for line := range strings.Lines(string(text)) {
		line, comment, _ := strings.Cut(line, "//")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
		case fields[0] == "module" && len(fields) == 2:
			h.module = fields[1]
		case fields[0] == ")":
			block = false
		case fields[0] == "require" && len(fields) == 2 && fields[1] == "(":
			block = true
		case (block || fields[0] == "require") && strings.TrimSpace(comment) != "indirect":
			h.requires = append(h.requires, strings.TrimPrefix(fields[len(fields)-2], "require "))
		}
	}
	if h.module == "" {
		return fmt.Errorf("go.mod names no module")
	}
	return nil
}
