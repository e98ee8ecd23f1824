package testbed

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	return fmt.Sprintf("CPU %.0f %%, %.0f %% ours, %.1f core-s and %.1f of the bed, %s", share(now.busy-before.busy), share(now.ours-before.ours),
		float64(now.ours-before.ours)/userHZ, (now.bed - before.bed).Seconds(), b.medium()), nil
}

// reading is a reading of the machine's processor time, of that of all roles, and of this process.
type reading struct {
	ticks
	ours int64
	bed  time.Duration
}

func (b *bed) read() (r reading, err error) {
	if r.ticks, err = machineTicks(); err != nil {
		return r, err
	}
	var self unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &self); err != nil {
		return r, fmt.Errorf("testbed: own processor time: %w", err)
	}
	r.bed = time.Duration(self.Utime.Nano() + self.Stime.Nano())
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

var residentForm = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB$`)

// resident is the memory of a process in bytes; 0 when it does not run.
func resident(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	m := residentForm.FindSubmatch(text)
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64) // its digits were matched
	return n << 10
}
