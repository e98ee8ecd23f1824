package devices

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"freshet/internal/wire"
)

func device(n int) wire.DeviceID { return wire.DeviceID{byte(n >> 8), byte(n)} }

// TestEnter: one probe of a device in an interval, and so many at once of all.
func TestEnter(t *testing.T) {
	now := time.Unix(1000, 0)
	p := NewProber(nil, nil, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	release, _ := p.enter(device(1))
	if release == nil {
		t.Fatal("the first probe was refused")
	}
	if again, wait := p.enter(device(1)); again != nil || wait != probeInterval {
		t.Errorf("a second probe at once, or after %v; want after %v", wait, probeInterval)
	}
	release()
	now = now.Add(probeInterval - 1)
	if again, wait := p.enter(device(1)); again != nil || wait != 1 {
		t.Errorf("a second probe before its time, or after %v", wait)
	}
	now = now.Add(1)
	var all []func()
	for n := range maxProbes {
		release, _ := p.enter(device(n))
		if release == nil {
			t.Fatalf("probe %d of %d at once was refused", n, maxProbes)
		}
		all = append(all, release)
	}
	if release, wait := p.enter(device(maxProbes)); release != nil || wait <= 0 {
		t.Errorf("one probe more than %d at once", maxProbes)
	}
	all[0]()
	if release, _ := p.enter(device(maxProbes)); release == nil {
		t.Error("refused, though one has ended: the refusal counted as a probe, or its slot is lost")
	}
}

// TestEnterForgets: what is remembered of devices does not grow with the fleet.
func TestEnterForgets(t *testing.T) {
	now := time.Unix(1000, 0)
	p := NewProber(nil, nil, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	for n := range probeMemory + 10 {
		release, _ := p.enter(device(n))
		release()
		now = now.Add(probeInterval)
	}
	if len(p.last) > probeMemory {
		t.Errorf("%d devices are remembered, want at most %d", len(p.last), probeMemory)
	}
}

func TestReasonOf(t *testing.T) {
	timeout := &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	for _, c := range []struct {
		err  error
		want string
	}{
		{context.DeadlineExceeded, "no answer within 3s"},
		{fmt.Errorf("dial: %w", timeout), "no answer within 3s"},
		{errors.Join(errOther, errors.New("tls: SSH-2.0-secret")), "something else"},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "nobody answers"},
	} {
		if got := reasonOf(c.err); !strings.HasPrefix(got, c.want) || strings.Contains(got, "secret") {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}
