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
)

const (
	ccmTimeout   = 30 * time.Second
	maxComplaint = 2048 // bytes of what PowerShell complains of
)

// SystemRows asks the Configuration Manager client of this device, through the PowerShell
// that every Windows has: WMI is reached by COM alone, which would want a library of its own.
// A question ends after 30 s and takes 16 MiB at most.
func SystemRows(ctx context.Context) ([]Row, error) {
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
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("ask PowerShell for %s in %s (is the Configuration Manager client installed?): %w: %s",
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
