package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// OneToOne moves a content from one device to one other, verified and on disk, alternating
// with a bare pipe that does the same without any protocol, plain and with TLS. Seconds are
// of processor time, both ends together, all in this process.
func OneToOne(ctx context.Context, o Options) ([]Figure, error) {
	f, err := newFleet(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	defer f.close()
	source := filepath.Join(f.root, "large", "1", "file")
	if err := randomFile(source, o.Size); err != nil {
		return nil, err
	}
	if err := f.publish(1); err != nil {
		return nil, err
	}
	var figures []Figure
	for _, kind := range []struct {
		name   string
		plain  bool
		bound  string
		rivals string
	}{
		{"plain", true, "≤ 1.7", "curl + openssl 2.45, aria2 BitTorrent 3.65, libtorrent 5.3; bare Go pipe 1.1–1.5"},
		{"TLS", false, "≤ 2.9", "rivals do not encrypt; bare Go pipe 2.2–2.7"},
	} {
		p := &pairing{o: o, f: f, plain: kind.plain, source: source}
		if err := p.measure(ctx); err != nil {
			return nil, err
		}
		figures = append(figures,
			figure("one to one, "+kind.name, "core-s/GiB", p.cpu, kind.bound, kind.rivals),
			figure("one to one, "+kind.name+", whole-file check", "core-s/GiB", p.checked, kind.bound+" + 0.6", ""),
			figure("whole-file check besides, user time, "+kind.name, "core-s/GiB", p.check, "≤ 0.6", ""),
			figure("bare pipe, "+kind.name, "core-s/GiB", p.bare, "", ""),
			figure("one to one ÷ bare pipe, "+kind.name, "ratio", p.ratio, "≤ 1.4", ""),
			figure("one to one, "+kind.name, "MB/s", p.rate, "", "libtorrent 319, curl + openssl 460"),
			figure("bare pipe, "+kind.name, "MB/s", p.bareRate, "", ""),
		)
	}
	return figures, nil
}

// pairing alternates the two.
type pairing struct {
	o      Options
	f      *fleet
	plain  bool
	source string

	cpu, checked, check, bare, ratio, rate, bareRate []float64
}

func (p *pairing) measure(ctx context.Context) error {
	settings := map[string]string{}
	if p.plain {
		settings["plainSwarm"] = "true"
	}
	giver, err := p.f.agent(settings)
	if err != nil {
		return err
	}
	defer giver.end()
	if _, err := giver.get(ctx, "large", true); err != nil {
		return err
	}
	gib := float64(p.o.Size) / (1 << 30)
	if _, _, err := p.once(ctx, settings, true); err != nil { // the first run warms up
		return err
	}
	for run := range p.o.Runs {
		used, wall, err := p.once(ctx, settings, true)
		if err != nil {
			return err
		}
		if err := warm(p.o.Dir, p.o.Size); err != nil {
			return err
		}
		bareCPU, bareWall, err := barePipe(ctx, p.source, filepath.Join(p.o.Dir, "pipe"), p.plain)
		if err != nil {
			return err
		}
		checked, _, err := p.once(ctx, settings, false)
		if err != nil {
			return err
		}
		p.cpu = append(p.cpu, used.all()/gib)
		p.checked = append(p.checked, checked.all()/gib)
		p.check = append(p.check, (checked.user-used.user)/gib)
		p.bare = append(p.bare, bareCPU/gib)
		p.ratio = append(p.ratio, used.all()/bareCPU)
		p.rate = append(p.rate, float64(p.o.Size)/1e6/wall.Seconds())
		p.bareRate = append(p.bareRate, float64(p.o.Size)/1e6/bareWall.Seconds())
		fmt.Fprintf(p.o.Out, "run %d: %.2f core-s, pipe %.2f core-s\n", run+1, used.all(), bareCPU)
	}
	return nil
}

// warm writes and removes a file of n bytes, so that the memory that the next one takes in
// the page cache has just been used. In a virtual machine memory that was free for a while is
// the host's again, and its return costs up to two core-seconds a GiB: more than all else.
func warm(dir string, n int64) error {
	f, err := os.CreateTemp(dir, "warm-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	buf := make([]byte, 1<<20)
	for ; n > 0; n -= int64(len(buf)) {
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// once lets a fresh device get the content from the one that has it.
func (p *pairing) once(ctx context.Context, settings map[string]string, noCheck bool) (used cpu, wall time.Duration, err error) {
	taker, err := p.f.agent(settings)
	if err != nil {
		return cpu{}, 0, err
	}
	defer taker.end()
	if err := warm(p.o.Dir, p.o.Size); err != nil {
		return cpu{}, 0, err
	}
	before, start := cpuTime(), time.Now()
	last, err := taker.get(ctx, "large", noCheck)
	if err != nil {
		return cpu{}, 0, err
	}
	if last.FromPeers != last.Size {
		return cpu{}, 0, fmt.Errorf("bench: %d of %d bytes came from the peer", last.FromPeers, last.Size)
	}
	return cpuTime().since(before), time.Since(start), nil
}
