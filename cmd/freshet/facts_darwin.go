package main

import (
	"golang.org/x/sys/unix"

	"freshet/internal/policy"
)

// deviceFacts measures what the settings on peering ask of a device.
func deviceFacts(dir string) policy.DeviceFacts {
	var f policy.DeviceFacts
	if n, err := unix.SysctlUint64("hw.memsize"); err == nil {
		f.RAM = int64(n)
	}
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil {
		f.Disk = int64(st.Blocks) * int64(st.Bsize)
	}
	return f
}
