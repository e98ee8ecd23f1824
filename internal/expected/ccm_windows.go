package expected

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

const (
	ccmTimeout   = 25 * time.Second // less than who asks waits
	maxComplaint = 2048             // bytes of what PowerShell complains of
	ccmService   = `SYSTEM\CurrentControlSet\Services\CcmExec`
)

// SystemRows asks the Configuration Manager client of this device, through the PowerShell
// that every Windows has: WMI is reached by COM alone, which would want a library of its own.
// A question ends after 25 s and takes 16 MiB at most. Where the client's service is not
// installed nothing is started: PowerShell may be forbidden there.
func SystemRows(ctx context.Context) ([]Row, error) {
	switch key, err := registry.OpenKey(registry.LOCAL_MACHINE, ccmService, registry.QUERY_VALUE); {
	case errors.Is(err, registry.ErrNotExist):
		return nil, ErrNoClient
	case err == nil:
		key.Close()
	}
	system, err := windows.GetSystemDirectory()
	if err != nil {
		return nil, fmt.Errorf("find the system directory: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, ccmTimeout)
	defer cancel()
	// The whole path: a powershell.exe elsewhere in PATH is not asked.
	cmd := exec.CommandContext(ctx, filepath.Join(system, `WindowsPowerShell\v1.0\powershell.exe`), ccmArguments()...)
	cmd.SysProcAttr = &windows.SysProcAttr{HideWindow: true}
	cmd.WaitDelay = time.Second
	out, complaint := &bounded{max: maxRowBytes}, &bounded{max: maxComplaint, cut: true}
	cmd.Stdout, cmd.Stderr = out, complaint
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == absentCode {
			return nil, ErrNoClient
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("ask PowerShell for %s in %s: %w: %s",
			ccmQuery, ccmNamespace, err, strings.Join(strings.Fields(complaint.String()), " "))
	}
	return parseRows(out.Bytes())
}

// bounded keeps up to max bytes; more are cut or end the process.
type bounded struct {
	bytes.Buffer
	max int
	cut bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.max - b.Len(); len(p) > room {
		if !b.cut {
			return 0, errors.New("the client's answer is too long")
		}
		b.Buffer.Write(p[:room])
		return len(p), nil
	}
	return b.Buffer.Write(p)
}
