package testbed

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ticks are processor times in ticks of the clock, 100 a second.
type ticks struct{ busy, all int64 }

// userHZ is how many ticks of /proc are a second.
const userHZ = 100

// machineTicks reads what all processors did since the start of the machine.
func machineTicks() (t ticks, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return t, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	// cpu user nice system idle iowait irq softirq steal guest …: guest is in user
	for i, field := range strings.Fields(line)[1:9] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return t, fmt.Errorf("testbed: /proc/stat: %w", err)
		}
		t.all += n
		if i != 3 && i != 4 {
			t.busy += n
		}
	}
	return t, nil
}

// processTicks is the processor time of a process that runs, else 0.
func processTicks(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return user + system
}

// load says how busy the machine was since an earlier reading, and how much of that the
// bed's processes were: a time is worth little where others were busy.
func (b *bed) load(before reading) (string, error) {
	now, err := b.read()
	if err != nil || now.all == before.all {
		return "", err
	}
	share := func(n int64) float64 { return 100 * float64(n) / float64(now.all-before.all) }
	return fmt.Sprintf("CPU %.0f %%, %.0f %% ours", share(now.busy-before.busy), share(now.ours-before.ours)), nil
}

// reading is a reading of the machine's and of the bed's processor time.
type reading struct {
	ticks
	ours int64
}

func (b *bed) read() (r reading, err error) {
	if r.ticks, err = machineTicks(); err != nil {
		return r, err
	}
	for _, p := range b.procs {
		switch {
		case p.live():
			r.ours += processTicks(p.cmd.Process.Pid)
		case p.cmd != nil:
			r.ours += int64((p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()).Seconds() * userHZ)
		}
	}
	return r, nil
}
