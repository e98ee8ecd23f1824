//go:build unix

package bench

import "golang.org/x/sys/unix"

// cpuTime is the processor time of this process so far, in seconds.
func cpuTime() cpu {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return cpu{}
	}
	return cpu{user: float64(u.Utime.Nano()) / 1e9, system: float64(u.Stime.Nano()) / 1e9}
}
