package agent

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// staging knows the staging directories that downloads of this process use.
type staging struct {
	mu   sync.Mutex // guards live, and is held while directories are made and swept
	live map[string]int
}

// prepare prepares p, after removing what an agent that was killed left in the destination of
// the same content. done says that p has cleaned up.
func (s *staging) prepare(p *placer) (done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sweep(p); err != nil {
		return nil, err
	}
	if err := p.prepare(); err != nil {
		return nil, err
	}
	name := p.stage
	s.live[name]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.live[name]--; s.live[name] == 0 {
			delete(s.live, name)
		}
	}, nil
}

// sweep removes staging directories of p's content that nobody uses.
func (s *staging) sweep(p *placer) error {
	if p.dest == nil {
		return nil
	}
	d, err := p.dest.Open(".")
	if err != nil {
		return fmt.Errorf("agent: opening the destination: %w", err)
	}
	defer d.Close()
	prefix := stagePrefix + p.entry.Digest().Short() + "-"
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			if strings.HasPrefix(name, prefix) && s.live[name] == 0 {
				if err := p.dest.RemoveAll(name); err != nil {
					return fmt.Errorf("agent: removing %q, which a killed agent left in the destination: %w", name, err)
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("agent: listing the destination: %w", err)
		}
	}
}
