package main

import (
	"unsafe"

	"golang.org/x/sys/windows"

	"freshet/internal/policy"
)

// memoryStatus is MEMORYSTATUSEX of the Windows API.
type memoryStatus struct {
	length, load                                          uint32
	total, avail, totalPage, availPage, totalV, availV, x uint64
}

// deviceFacts measures what the settings on peering ask of a device.
func deviceFacts(dir string) policy.DeviceFacts {
	var f policy.DeviceFacts
	m := memoryStatus{}
	m.length = uint32(unsafe.Sizeof(m))
	proc := windows.NewLazySystemDLL("kernel32.dll").NewProc("GlobalMemoryStatusEx")
	if ok, _, _ := proc.Call(uintptr(unsafe.Pointer(&m))); ok != 0 {
		f.RAM = int64(m.total)
	}
	if name, err := windows.UTF16PtrFromString(dir); err == nil {
		var free, total, all uint64
		if windows.GetDiskFreeSpaceEx(name, &free, &total, &all) == nil {
			f.Disk = int64(total)
		}
	}
	return f
}
