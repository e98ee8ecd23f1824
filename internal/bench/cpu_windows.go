package bench

import "golang.org/x/sys/windows"

// cpuTime is the processor time of this process so far, in seconds.
func cpuTime() cpu {
	var created, exited, kernel, user windows.Filetime
	if windows.GetProcessTimes(windows.CurrentProcess(), &created, &exited, &kernel, &user) != nil {
		return cpu{}
	}
	seconds := func(f windows.Filetime) float64 {
		return float64(int64(f.HighDateTime)<<32|int64(f.LowDateTime)) / 1e7
	}
	return cpu{user: seconds(user), system: seconds(kernel)}
}
