package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// Small measures how long a device that is in the fleet already takes for a content of
// 1 KiB that nobody has yet: from the request until its bytes are verified.
func Small(ctx context.Context, o Options) ([]Figure, error) {
	f, err := newFleet(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	defer f.close()
	n := max(20, o.Runs)
	for i := range n + 1 {
		if err := randomFile(filepath.Join(f.root, fmt.Sprintf("small-%d", i), "1", "file"), 1<<10); err != nil {
			return nil, err
		}
	}
	if err := f.publish(n + 1); err != nil {
		return nil, err
	}
	d, err := f.agent(nil)
	if err != nil {
		return nil, err
	}
	defer d.end()
	var ms []float64
	for i := range n + 1 {
		start := time.Now()
		if _, err := d.get(ctx, fmt.Sprintf("small-%d", i), false); err != nil {
			return nil, err
		}
		if i > 0 { // the first one opens connections
			ms = append(ms, float64(time.Since(start).Microseconds())/1e3)
		}
	}
	return []Figure{figure("1 KiB content, verified and durable", "ms", ms, "≤ 50", "Kraken 1,040, Dragonfly about 650, Transmission 10,000")}, nil
}
