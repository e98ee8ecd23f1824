package agent

import (
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
)

// syncDir makes the names in a directory durable. Windows has no such call and needs none.
func syncDir(root *os.Root, name string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

var stages atomic.Int64

// stageNumber tells staging directories of one process apart.
func stageNumber() string { return strconv.FormatInt(stages.Add(1), 10) }
