package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"freshet/internal/agent"
	"freshet/internal/demo"
)

// Memory runs two agents as processes of their own, which get a content at the same time,
// and reads the most memory that each had resident. Linux tells it.
func Memory(ctx context.Context, o Options) ([]Figure, error) {
	if runtime.GOOS != "linux" {
		return nil, nil
	}
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	source := filepath.Join(o.Dir, "source")
	if err := randomFile(filepath.Join(source, "file"), o.Size); err != nil {
		return nil, err
	}
	v := &memoryView{}
	_, err = demo.Run(ctx, demo.Options{
		Binary: binary, Path: source, Devices: 2, Sites: 1, WAN: "8Gbit", Rate: 1e9, View: v,
		Stopping: func(agents []int) {
			for _, pid := range agents {
				v.peaks = append(v.peaks, float64(peak(pid))/(1<<20))
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return []Figure{figure(fmt.Sprintf("an agent's most resident memory, %d MiB moved", o.Size>>20), "MiB", v.peaks, "≤ 80", "Kraken 90–128")}, nil
}

type memoryView struct{ peaks []float64 }

func (*memoryView) Step(string)                       {}
func (*memoryView) Device(int, agent.Progress, error) {}

// peak returns VmHWM of a process in bytes.
func peak(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}
