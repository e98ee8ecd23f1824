package deliver

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// Stages knows the staging directories that placements of this process use. The zero value is
// ready; it may be used by many goroutines.
type Stages struct {
	mu    sync.Mutex // guards the following, and is held while directories are made and swept
	live  map[string]bool
	count int // staging directories made, which tells them apart
}

// Begin begins o, after removing what an agent that was killed left in the destination of the
// same content. The caller calls Close.
func (s *Stages) Begin(o Order) (*Placement, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &Placement{Order: o}
	if err := s.sweep(p); err != nil {
		return nil, err
	}
	s.count++
	if err := p.prepare(s.count); err != nil {
		return nil, err
	}
	if s.live == nil {
		s.live = map[string]bool{}
	}
	name := p.stage
	s.live[name] = true
	p.leave = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.live, name)
	}
	return p, nil
}

// sweep removes staging directories of p's content that nobody uses, but for those whose
// files were being placed when the agent was killed: they say that files of the content may
// be there already.
func (s *Stages) sweep(p *Placement) error {
	if p.Dest == nil {
		return nil
	}
	d, err := p.Dest.Open(".")
	if err != nil {
		return fmt.Errorf("deliver: opening the destination: %w", err)
	}
	defer d.Close()
	prefix := StagePrefix + p.Entry.Digest().Short() + "-"
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			base, placing := strings.CutSuffix(name, placingSuffix)
			switch {
			case !strings.HasPrefix(name, prefix) || s.live[base]:
			case placing:
				p.killed = append(p.killed, name)
			default:
				if err := p.Dest.RemoveAll(name); err != nil {
					return fmt.Errorf("deliver: removing %q, which a killed agent left in the destination: %w", name, err)
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("deliver: listing the destination: %w", err)
		}
	}
}
