package rules

import (
	"fmt"
	"go/ast"
	"maps"
	"slices"
	"strings"
	"testing"
)

// brains decide and do nothing else.
var brains = []string{"picker", "pace", "election", "freshness", "evict", "jobs", "metadata", "swarm"}

func isBrain(f file) bool {
	concept, _, _ := strings.Cut(f.pkg(), "/")
	return strings.HasPrefix(f.path, "internal/") && slices.Contains(brains, concept)
}

// checkBrains finds I/O, clocks, chance without a seed and concurrency in the brains. Their test
// files are free.
func checkBrains(tr *tree) []string {
	var breaches []string
	for _, f := range tr.files {
		if !isBrain(f) || f.isTest() {
			continue
		}
		for _, p := range slices.Sorted(maps.Keys(f.imports())) {
			if reason := forbiddenInBrain(p); reason != "" {
				breaches = append(breaches, fmt.Sprintf("%s: a brain imports %s: %s", f.path, p, reason))
			}
		}
		for _, u := range f.uses() {
			if reason := forbiddenUseInBrain(u); reason != "" {
				breaches = append(breaches, fmt.Sprintf("%s: a brain uses %s.%s: %s", tr.at(u.pos), u.path, u.name, reason))
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				breaches = append(breaches, tr.at(g.Pos())+": a brain starts a goroutine: one event must give the same actions each time, which needs one thread")
			}
			return true
		})
		if name := f.imports()["time"]; name == "." {
			breaches = append(breaches, f.path+": a brain imports time as .: what it uses of it cannot be seen")
		}
	}
	return breaches
}

func forbiddenInBrain(path string) string {
	root, _, _ := strings.Cut(path, "/")
	switch {
	case root == "net", root == "os", root == "syscall", path == "io/fs", path == "path/filepath", strings.HasPrefix(path, "golang.org/x/sys/"):
		return "a brain gives actions, and a shell does them; so the simulator can run it"
	case root == "sync":
		return "a brain has one owner and needs no locks"
	case path == "crypto/rand":
		return "chance comes from a seeded source that New gets; so a run can be replayed"
	}
	return ""
}

func forbiddenUseInBrain(u use) string {
	switch {
	case u.path == "time" && anyOf(u.name, "Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick", "Timer", "Ticker"):
		return "time comes in with each event as time since the start; so the simulator's time can be virtual"
	case u.path == "math/rand/v2" && !anyOf(u.name, "Rand", "New", "Source", "PCG", "NewPCG", "ChaCha8", "NewChaCha8"):
		return "this source has no seed: take the *rand.Rand that New gets; so a run can be replayed"
	}
	return ""
}

func TestBrains(t *testing.T) { holds(t, checkBrains(repository(t))) }

func TestBrainRulesSee(t *testing.T) {
	finds(t, checkBrains(example(t, "brains.txtar")),
		"internal/picker/io.go: a brain imports io/fs:",
		"internal/picker/io.go: a brain imports net/netip:",
		"internal/picker/io.go: a brain imports os:",
		"internal/picker/io.go: a brain imports sync/atomic:",
		"internal/picker/dot.go: a brain imports time as .:",
		"internal/swarm/part/part.go: a brain imports crypto/rand:",
		"internal/swarm/part/part.go:12: a brain uses time.Now:",
		"internal/swarm/part/part.go:13: a brain uses time.NewTimer:",
		"internal/swarm/part/part.go:14: a brain uses math/rand/v2.IntN:",
		"internal/swarm/part/part.go:15: a brain starts a goroutine:")
}
