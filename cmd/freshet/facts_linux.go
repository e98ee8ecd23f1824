package main

import (
	"golang.org/x/sys/unix"

	"freshet/internal/policy"
)

// deviceFacts measures what the settings on peering ask of a device.
func deviceFacts(dir string) policy.DeviceFacts {
	var f policy.DeviceFacts
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		f.RAM = int64(si.Totalram) * int64(si.Unit)
	}
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil {
		f.Disk = int64(st.Blocks) * int64(st.Bsize)
	}
	return f
}
