package testbed

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// interruptible returns a context that ends when the process is asked to, so that namespaces
// and processes go away.
func interruptible(t *testing.T) context.Context {
	t.Helper()
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)
	return ctx
}

// onBed skips a test unless scenarios are asked for, and fails it where they cannot run.
func onBed(t *testing.T) context.Context {
	t.Helper()
	if *scenarioDir == "" {
		t.Skip("make testbed runs it")
	}
	ctx := interruptible(t)
	if err := Check(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// buildBinary builds what runs in every role.
func buildBinary(ctx context.Context, t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "freshet")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", name, "freshet/cmd/freshet").CombinedOutput(); err != nil {
		t.Fatalf("building freshet: %v\n%s", err, out)
	}
	return name
}

// everyStep has each kind of line. The second site is cut from the origin, so that it is done
// only after its heal; a thawed device goes on; a device that ended gets the rest later.
const everyStep = `
site a wan 100Mbit
site b wan 50Mbit rtt 4ms
subnet a.1 devices 3
subnet b.1 devices 1
tcp reno
set DODownloadMode=1 on a
publish c 6MiB files 7
publish d 3MiB
cut b from origin,a.1.1
hush a.1.1
get d on b
pause 300ms
until d 0% on b
heal all
freeze a.1.3
get c on a.1.1,a.1.2
get d on a.1.3
until c 10% on a.1.1
kill a.1.2
stop a.1.1
start killed,a.1.1
get c on a.1.1
thaw a.1.3
wait 1m
get c on a.1.2
wait 1m
kill server
start killed
stop origin
start origin
expect hashes
expect wan <= 2 size + 1MiB
expect slowest <= 500 bound
`

// TestEveryStep: each line of a scenario does what it says, as far as the outcome shows.
func TestEveryStep(t *testing.T) {
	ctx := onBed(t)
	s, err := Parse("every-step", strings.NewReader(everyStep))
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	figures, err := Run(ctx, s, Options{Binary: buildBinary(ctx, t), Log: &log})
	if err != nil || len(Failures(figures)) > 0 || len(figures) != 3 {
		t.Fatalf("figures %v: %v\n%s", figures, err, log.String())
	}
	if !strings.Contains(log.String(), "killed,a.1.1: a.1.2,a.1.1") || !strings.Contains(log.String(), "killed: server") {
		t.Errorf("who was killed is not told:\n%s", log.String())
	}
}

// TestExpectationsFail: what does not hold makes a scenario fail.
func TestExpectationsFail(t *testing.T) {
	ctx := onBed(t)
	binary := buildBinary(ctx, t)
	const begin = "site a wan 100Mbit\nsubnet a.1 devices 1\npublish c 1MiB\n"
	for text, want := range map[string]string{
		"expect wan <= 9 size":                                     "no get has begun",
		"expect hashes":                                            "no get was done",
		"cut a from origin\nget c on a\nwait 1s":                   "not done after 1s",
		"get c on a\nwait 1m\nget c on a":                          "gets c already",
		"get c on origin":                                          "origin gets nothing",
		"kill a\nfreeze a\nget c on a\nwait 1s":                    "a.1.1 does not run",
		"get c on a\nwait 1m\nuntil c 10% on leader":               "nobody is leader",
		"cut a from origin\nget c on a\nexpect slowest <= 1 bound": "is not done",
	} {
		s, err := Parse("fails", strings.NewReader(begin+text+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = Run(ctx, s, Options{Binary: binary, Log: io.Discard}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestScenarios runs every scenario, one after the other, and prints the figures of all.
func TestScenarios(t *testing.T) {
	ctx := onBed(t)
	opt := Options{Binary: buildBinary(ctx, t), Keep: *keep, Log: os.Stdout}
	var all []Figure
	for _, s := range scenarios(t, *scenarioDir) {
		t.Run(s.Name, func(t *testing.T) {
			if ctx.Err() != nil {
				t.Fatal("interrupted")
			}
			figures, err := Run(ctx, s, opt)
			all = append(all, figures...)
			if err != nil {
				t.Error(err)
			}
			for _, f := range Failures(figures) {
				t.Error(f)
			}
		})
	}
	fmt.Println()
	if err := PrintFigures(os.Stdout, all); err != nil {
		t.Error(err)
	}
}
