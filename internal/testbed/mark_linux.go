package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// mark is how things stood when figures began to count.
type mark struct {
	set    bool
	at     time.Time
	counts []Counts // of each site
	cpu    reading
	gets   int                   // that began before
	logs   map[string]int64      // length of each log in bytes, by process
	memory map[string]int64      // resident bytes, by process
	leads  map[leadership]uint64 // epochs of those who led
}

// leadership is of one device in one content.
type leadership struct{ device, manifest string }

// stepMark lets figures count from now.
func (b *bed) stepMark(ctx context.Context) (err error) {
	m := mark{set: true, gets: len(b.gets), logs: map[string]int64{}, memory: map[string]int64{}}
	if m.counts, err = b.counts(ctx); err != nil {
		return err
	}
	if m.cpu, err = b.read(); err != nil {
		return err
	}
	for _, p := range b.procs {
		if st, err := os.Stat(p.log); err == nil {
			m.logs[p.name] = st.Size()
		}
		if p.live() {
			m.memory[p.name] = resident(p.cmd.Process.Pid)
		}
	}
	if m.leads, err = b.leads(ctx); err != nil {
		return err
	}
	m.at = time.Now()
	for _, g := range b.gets {
		g.restart(m.at)
	}
	b.mark = m
	return nil
}

var errNoMark = errors.New("nothing counts yet: a get or a mark comes before")

// since returns the gets that began since the mark.
func (b *bed) since() []*get { return b.gets[b.mark.gets:] }

// leads returns who leads what now, with the epochs.
func (b *bed) leads(ctx context.Context) (map[leadership]uint64, error) {
	all, err := b.statuses(ctx)
	if err != nil {
		return nil, err
	}
	out := map[leadership]uint64{}
	for name, list := range all {
		for _, st := range list {
			if st.Role == roleLeader {
				out[leadership{name, st.Manifest}] = st.Epoch
			}
		}
	}
	return out, nil
}

// describe names a leadership for people.
func (l leadership) describe(epoch uint64) string {
	return fmt.Sprintf("%s leads %.12s in epoch %d", l.device, l.manifest, epoch)
}
