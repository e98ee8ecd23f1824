package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"freshet/internal/agent"
	"freshet/internal/localapi"
)

// get is one device getting one content.
type get struct {
	content string
	device  device
	dir     string // of the files
	started time.Time
	cancel  context.CancelFunc
	dropped bool // its device was ended on purpose

	last atomic.Pointer[agent.Progress]
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

// stepGet lets devices begin to get a content. A device that begins once more, since it had
// been ended, is measured from its first time.
func (b *bed) stepGet(ctx context.Context, s *Step) error {
	nodes, err := b.resolve(ctx, s.On)
	if err != nil {
		return err
	}
	if b.before == nil {
		if b.before, err = b.counts(ctx); err != nil {
			return err
		}
		if b.cpu, err = b.read(); err != nil {
			return err
		}
		if err := b.warmth.release(); err != nil {
			return err
		}
	}
	for _, e := range nodes {
		if e.far() {
			return fmt.Errorf("%s gets nothing", e.name)
		}
		if err := b.beginGet(ctx, s.Content, device{e.name, e.at}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bed) beginGet(ctx context.Context, content string, d device) error {
	g := &get{content: content, device: d, started: time.Now(), done: make(chan struct{}),
		dir: filepath.Join(b.dir, "out", d.name, content)}
	for _, old := range b.gets {
		if old.content == content && old.device == d {
			if !old.dropped {
				return fmt.Errorf("%s gets %s already", d.name, content)
			}
			g.started = earlier(g.started, old.started)
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
		call := localapi.Call{Content: ref(content)}
		g.err = client.Get(ctx, call, dir, func(p agent.Progress) { g.last.Store(&p) })
		g.took = time.Since(g.started)
	}()
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// stepWait waits until every get is done.
func (b *bed) stepWait(ctx context.Context, s *Step) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.Time, fmt.Errorf("not done after %v", s.Time))
	defer cancel()
	err := b.poll(ctx, func() (bool, error) {
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
	b.busy, err = b.load(b.cpu)
	return err
}

// late says how far those are that are not done.
func (b *bed) late() error {
	var errs []error
	for _, g := range b.gets {
		if p := g.last.Load(); !g.dropped && !g.finished() && p != nil {
			errs = append(errs, fmt.Errorf("%s holds %s of %s: %s %s", g.device.name, mib(p.Held), mib(p.Size), p.Phase, p.Waits))
		}
	}
	return errors.Join(errs...)
}

// drop gives up what a device that is being ended gets.
func (b *bed) drop(name string) {
	for _, g := range b.gets {
		if g.device.name == name && !g.finished() {
			g.dropped = true
		}
	}
}
