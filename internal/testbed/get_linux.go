package testbed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"freshet/internal/agent"
	"freshet/internal/localapi"
)

// get is one device getting one content.
type get struct {
	content string
	device  device
	want    *issue // that it is to bring
	dir     string // of the files
	started time.Time
	cancel  context.CancelFunc
	dropped bool // its device was ended on purpose, or its caller went away

	mu      sync.Mutex // guards the following
	last    *agent.Progress
	moved   time.Time     // when more was held than before
	longest time.Duration // between two such times

	done chan struct{} // closed when the following are set
	took time.Duration
	err  error
}

func (g *get) finished() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

// heard takes what the agent tells of its progress.
func (g *get) heard(p agent.Progress) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if before := g.last; before == nil || p.Held > before.Held || p.Manifest != before.Manifest {
		now := time.Now()
		g.longest = max(g.longest, now.Sub(g.moved))
		g.moved = now
	}
	g.last = &p
}

// progress is what the agent told last; nil: nothing yet.
func (g *get) progress() *agent.Progress {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// restart lets the longest stall count from at.
func (g *get) restart(at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.moved, g.longest = at, 0
}

// stall is the longest time in which nothing was held that was not before. What comes after the
// last byte is none.
func (g *get) stall() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.finished() || g.last != nil && g.last.Held == g.last.Size {
		return g.longest
	}
	return max(g.longest, time.Since(g.moved))
}

// stepGet lets devices begin to get a content. A device that begins once more, since it had
// been ended, is measured from its first time.
func (b *bed) stepGet(ctx context.Context, s *Step) error {
	nodes, err := b.resolve(ctx, s.On)
	if err != nil {
		return err
	}
	if !b.mark.set {
		if err := errors.Join(b.stepMark(ctx), b.warmth.release()); err != nil {
			return err
		}
	}
	names := b.s.names(s.Content)
	for batch := range slices.Chunk(names, max(1, cmp.Or(s.Batch, len(names)))) {
		for _, name := range batch {
			if err := b.getOne(ctx, s, name, nodes); err != nil {
				return err
			}
		}
		if s.Batch > 0 {
			if err := b.stepWait(ctx, &Step{Time: untilTime}); err != nil {
				return err
			}
		}
	}
	return nil
}

// getOne lets devices begin to get one content.
func (b *bed) getOne(ctx context.Context, s *Step, name string, nodes []end) error {
	p := b.contents[name]
	if p == nil {
		return fmt.Errorf("%s is not published yet", name)
	}
	call := localapi.Call{Content: ref(name), Foreground: s.Hurry}
	if s.Issue != NoIssue {
		text, match, err := b.expected(ctx, p, s.Issue)
		if err != nil {
			return err
		}
		call.Metadata, call.Match = text, match.String()
	}
	for _, e := range nodes {
		if !b.isDevice(e.name) {
			return fmt.Errorf("%s gets nothing", e.name)
		}
		if err := b.beginGet(ctx, call, p, device{e.name, e.at}); err != nil {
			return err
		}
	}
	return nil
}

// beginGet begins one device's get of the issue that is published.
func (b *bed) beginGet(ctx context.Context, call localapi.Call, p *published, d device) error {
	now := time.Now()
	g := &get{content: p.name, device: d, want: p.current(), started: now, moved: now, done: make(chan struct{}),
		dir: filepath.Join(b.dir, "out", d.name, p.name+"-"+strconv.Itoa(len(b.gets)))}
	for _, old := range b.gets {
		if old.content != p.name || old.device != d || old.want != g.want {
			continue
		}
		if !old.dropped {
			return fmt.Errorf("%s gets %s already", d.name, p.name)
		}
		if old.started.Before(g.started) && slices.Contains(b.since(), old) {
			g.started = old.started
		}
	}
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(g.dir)
	if err != nil {
		return err
	}
	ctx, g.cancel = context.WithCancel(ctx)
	b.gets = append(b.gets, g)
	client := b.agent(d.name)
	go func() {
		defer close(g.done)
		defer dir.Close()
		g.err = client.Get(ctx, call, dir, g.heard)
		g.took = time.Since(g.started)
	}()
	return nil
}

// stepWait waits until every get is done.
func (b *bed) stepWait(ctx context.Context, s *Step) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.Time, fmt.Errorf("not done after %v", s.Time))
	defer cancel()
	err := b.poll(ctx, pollEvery, func() (bool, error) {
		all := true
		for _, g := range b.gets {
			switch {
			case g.dropped:
			case !g.finished():
				all = false
			case g.err != nil:
				return false, fmt.Errorf("%s: %w", g.device.name, g.err)
			}
		}
		return all, nil
	})
	if err != nil {
		return errors.Join(err, b.late())
	}
	b.busy, err = b.load(b.mark.cpu)
	return err
}

// late says how far those are that are not done.
func (b *bed) late() error {
	var errs []error
	for _, g := range b.gets {
		if p := g.progress(); !g.dropped && !g.finished() && p != nil {
			errs = append(errs, fmt.Errorf("%s holds %s of %s: %s %s", g.device.name, mib(p.Held), mib(p.Size), p.Phase, p.Waits))
		}
	}
	return errors.Join(errs...)
}

// stepAbandon lets callers go away.
func (b *bed) stepAbandon(ctx context.Context, s *Step) error {
	nodes, err := b.resolve(ctx, s.On)
	if err != nil {
		return err
	}
	names := b.s.names(s.Content)
	for _, g := range b.gets {
		at := slices.IndexFunc(nodes, func(e end) bool { return e.name == g.device.name })
		if at < 0 || g.finished() || !slices.Contains(names, g.content) {
			continue
		}
		g.dropped = true
		g.cancel()
		<-g.done
	}
	return nil
}

// drop gives up what a device that is being ended gets.
func (b *bed) drop(name string) {
	for _, g := range b.gets {
		if g.device.name == name && !g.finished() {
			g.dropped = true
		}
	}
}
