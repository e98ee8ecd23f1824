package rules

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// use is one mention of a package's name, such as time.Sleep.
type use struct {
	path, name string // "time", "Sleep"
	in         string // the function around it, "" outside of functions
	pos        token.Pos
}

// uses lists what f mentions of the packages that it imports.
func (f file) uses() []use {
	byName := map[string]string{}
	for p, name := range f.imports() {
		byName[name] = p
	}
	var found []use
	for _, decl := range f.ast.Decls {
		in := ""
		if fn, ok := decl.(*ast.FuncDecl); ok {
			in = fn.Name.Name
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && byName[x.Name] != "" {
					found = append(found, use{byName[x.Name], sel.Sel.Name, in, sel.Pos()})
				}
			}
			return true
		})
	}
	return found
}

// anyOf reports whether names holds name.
func anyOf(name string, names ...string) bool { return slices.Contains(names, name) }

// checkImportsOfAll finds packages that no file, or only some files, may import.
func checkImportsOfAll(tr *tree) []string {
	assertions := []string{"github.com/stretchr/", "github.com/onsi/", "gotest.tools/", "github.com/matryer/is", "github.com/frankban/quicktest", "github.com/alecthomas/assert", "go.uber.org/mock", "github.com/golang/mock"}
	var breaches []string
	for _, f := range tr.files {
		for _, p := range slices.Sorted(maps.Keys(f.imports())) {
			reason := ""
			switch {
			case p == "math/rand":
				reason = "math/rand/v2 has replaced it, and its sources can be seeded and replayed"
			case p == "math/rand/v2" && !f.isTest() && !isBrain(f) && f.pkg() != "sim":
				reason = "chance belongs to the brains and the simulator, whose sources are seeded; a secret needs crypto/rand"
			case slices.ContainsFunc(assertions, func(a string) bool { return strings.HasPrefix(p, a) }):
				reason = "tests use the standard library alone: a got and a want say more than a stack of helpers"
			}
			if reason != "" {
				breaches = append(breaches, fmt.Sprintf("%s: imports %s: %s", f.path, p, reason))
			}
		}
	}
	return breaches
}

// checkCalls finds calls that only some files may make.
func checkCalls(tr *tree) []string {
	var breaches []string
	for _, f := range tr.files {
		for _, u := range f.uses() {
			if reason := forbiddenCall(f, u); reason != "" {
				breaches = append(breaches, fmt.Sprintf("%s: %s.%s: %s", tr.at(u.pos), u.path, u.name, reason))
			}
		}
	}
	return breaches
}

func forbiddenCall(f file, u use) string {
	switch {
	case f.isTest() && u.path == "time" && u.name == "Sleep":
		return "a test that sleeps is slow or fails by chance: wait for the event, or use testing/synctest"
	case f.path == "cmd/freshet/main.go", f.isTest() && u.in == "TestMain": // TestMain is a test's main
		return ""
	case u.path == "os" && u.name == "Exit", u.path == "log" && anyOf(u.name, "Fatal", "Fatalf", "Fatalln"):
		return "only cmd/freshet/main.go ends the process: return an error, so that others can clean up and tests can run"
	}
	return ""
}

// checkTLS finds where the check of a server's certificate is switched off.
func checkTLS(tr *tree) []string {
	var breaches []string
	for _, f := range tr.files {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if switchesOffTLS(n) {
				breaches = append(breaches, tr.at(n.Pos())+": InsecureSkipVerify: true: believes any server; give the configuration the fleet's CA and a name to check")
			}
			return true
		})
	}
	return breaches
}

func switchesOffTLS(n ast.Node) bool {
	const field = "InsecureSkipVerify"
	switch n := n.(type) {
	case *ast.KeyValueExpr:
		key, ok := n.Key.(*ast.Ident)
		return ok && key.Name == field && !isFalse(n.Value)
	case *ast.AssignStmt:
		for i, left := range n.Lhs {
			sel, ok := left.(*ast.SelectorExpr)
			if ok && sel.Sel.Name == field && (i >= len(n.Rhs) || !isFalse(n.Rhs[i])) {
				return true
			}
		}
	}
	return false
}

func isFalse(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == "false"
}

var (
	openWork  = regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
	withIssue = regexp.MustCompile(`\bissue \d+\b`)
)

// checkTodos finds notes on open work that no issue knows.
func checkTodos(tr *tree) []string {
	var breaches []string
	for _, f := range tr.files {
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				if openWork.MatchString(c.Text) && !withIssue.MatchString(c.Text) {
					breaches = append(breaches, tr.at(c.Pos())+": a note on open work without \"issue N\": nobody will come back to it")
				}
			}
		}
	}
	return breaches
}

func TestCalls(t *testing.T) {
	tr := repository(t)
	holds(t, checkImportsOfAll(tr))
	holds(t, checkCalls(tr))
	holds(t, checkTLS(tr))
	holds(t, checkTodos(tr))
}

func TestCallRulesSee(t *testing.T) {
	tr := example(t, "calls.txtar")
	finds(t, checkImportsOfAll(tr),
		"internal/low/low.go: imports math/rand/v2:",
		"internal/low/low_test.go: imports github.com/stretchr/testify/require:",
		"internal/low/low_test.go: imports math/rand:")
	finds(t, checkCalls(tr),
		"internal/low/low.go:14: log.Fatalf:",
		"internal/low/low.go:15: os.Exit:",
		"internal/low/low_test.go:11: time.Sleep:",
		"internal/low/low_test.go:12: os.Exit:")
	finds(t, checkTLS(tr),
		"internal/low/tls.go:6: InsecureSkipVerify",
		"internal/low/tls.go:10: InsecureSkipVerify",
		"internal/low/tls.go:11: InsecureSkipVerify")
	finds(t, checkTodos(tr), "internal/low/low.go:3: a note on open work")
}
