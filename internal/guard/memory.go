package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"freshet/internal/freshness"
)

// memory is the file.
type memory struct {
	Saved    time.Time
	State    freshness.State
	Findings findings
}

const (
	saveEvery = time.Second      // at most
	saveAgain = 10 * time.Second // after an error
)

// load reads what was remembered, and how long ago that was kept.
func (g *Guard) load() (m memory, away time.Duration) {
	if g.opt.File == "" {
		return m, 0
	}
	b, err := os.ReadFile(g.opt.File)
	if errors.Is(err, fs.ErrNotExist) {
		return m, 0
	}
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		g.log.Warn("what was remembered of freshness is begun anew", "file", g.opt.File, "err", err)
		return memory{}, 0
	}
	m.Findings = slices.DeleteFunc(m.Findings, func(k kept) bool { return k.Outcome == freshness.NoOutcome })
	return m, max(time.Since(m.Saved), 0)
}

// memory returns what to keep. It shares nothing that the loop changes.
func (g *Guard) memory() memory {
	g.mu.Lock()
	defer g.mu.Unlock()
	return memory{Saved: time.Now(), State: g.brain.State(g.now()), Findings: append(findings(nil), g.findings...)}
}

// save begins to write what changed, beside the loop, when the last time is a while ago; else it
// is tried again then. A crash may cost the last second: what was in quarantine then is asked
// for again when the array is heard.
func (g *Guard) save() {
	if !g.unsaved || g.saving {
		return
	}
	g.unsaved, g.saving = false, true
	wait := max(time.Until(g.saveAt), 0)
	g.wg.Go(func() {
		if wait > 0 {
			select {
			case <-time.After(wait):
			case <-g.ctx.Done():
				return // the end saves
			}
		}
		snapshot := make(chan memory, 1)
		g.post(func() { g.unsaved = false; snapshot <- g.memory() })
		select {
		case m := <-snapshot:
			again := saveEvery
			if !g.write(m) {
				again = saveAgain
			}
			g.post(func() {
				g.saving, g.saveAt = false, time.Now().Add(again)
				g.unsaved = g.unsaved || again == saveAgain
			})
		case <-g.ended:
		}
	})
}

// write puts m into the file, whole or not at all, and reports whether it did.
func (g *Guard) write(m memory) bool {
	if g.opt.File == "" {
		return true
	}
	b, err := json.Marshal(m)
	if err == nil {
		err = replaceFile(g.opt.File, b)
	}
	if err != nil {
		g.log.Warn("remembering freshness", "err", err)
	}
	return err == nil
}

// replaceFile writes a file under another name, syncs it and renames it.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("guard: write %q: %w", path, err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("guard: write %q: %w", path, err)
	}
	return nil
}
