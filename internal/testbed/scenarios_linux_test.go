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

	"freshet/internal/testbed/hostile"
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

// hostileArg has this binary be a program of package hostile.
const hostileArg = "hostile"

func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != hostileArg {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := hostile.Run(ctx, os.Args[2:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// options are those of scenarios.
func options(ctx context.Context, t *testing.T, log io.Writer) Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Binary: buildBinary(ctx, t), Hostile: []string{self, hostileArg}, Keep: *keep, Log: log}
}

// buildBinary builds what runs in every role, unless one was given.
func buildBinary(ctx context.Context, t *testing.T) string {
	t.Helper()
	if *binary != "" {
		return *binary
	}
	name := filepath.Join(t.TempDir(), "freshet")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", name, "freshet/cmd/freshet").CombinedOutput(); err != nil {
		t.Fatalf("building freshet: %v\n%s", err, out)
	}
	return name
}

// everyStep has each kind of line that needs no election. The second site is cut from the origin,
// so that it is done only after its heal; a thawed device goes on; a device that ended gets the
// rest later. One content is changed, and a device that waits for what never comes is abandoned.
const everyStep = `
site a wan 100Mbit
site b wan 50Mbit rtt 4ms
subnet a.1 devices 3 hosts 1
subnet b.1 devices 1
tcp reno
set DODownloadMode=1 on a
publish c 6MiB files 7
publish d 3MiB
publish e 200KiB times 3
publish f 100KiB sha256-only
publish g 100KiB signed
cut b from origin,a.1.1
reject b from server
hush a.1.1
pause 300ms
heal b
reject b from origin
get d on b
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
expect stall <= 60s on a,-a.1.3
name fast a.1.1,a.1.2
expect held c on fast
expect forgotten c on a
run taste on a.1.h1 with c
pause 1s
mark
pause 500ms
expect given <= 1s
expect withheld <= 10s
get e on fast
get f on a.1.1
get g on a.1.2 foreground
cut a.1.3 from origin,server,fast
get e on a.1.3
abandon e on a.1.3
heal a.1.3
wait 1m
expect memory <= 200MiB on all
republish c changed 10%
expect lines "content is served" >= 1 on origin
get c on b
overwrite g changed 10%
wait 1m
kill server
start killed
stop origin
start origin
expect hashes
expect wan <= 2 size + 1MiB
expect subnets <= 2 size + 1MiB
expect slowest <= 500 bound
`

// everyFigure is how many figures everyStep has.
const everyFigure = 1 + 2 + 2 + 2 + 2 + 1

// TestEveryStep: each line of a scenario does what it says, as far as the outcome shows.
func TestEveryStep(t *testing.T) {
	ctx := onBed(t)
	s, err := Parse("every-step", strings.NewReader(everyStep))
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	figures, err := Run(ctx, s, options(ctx, t, &log))
	if err != nil || len(Failures(figures)) > 0 || len(figures) != everyFigure {
		t.Fatalf("figures %v: %v\n%s", figures, err, log.String())
	}
	for _, want := range []string{"killed,a.1.1: a.1.2,a.1.1", "killed: server", "fast: a.1.1,a.1.2"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is not told:\n%s", want, log.String())
		}
	}
}

// TestExpectationsFail: what does not hold makes a scenario fail.
func TestExpectationsFail(t *testing.T) {
	ctx := onBed(t)
	opt := options(ctx, t, io.Discard)
	const begin = "site a wan 100Mbit\nsubnet a.1 devices 1\npublish c 1MiB\n"
	for text, want := range map[string]string{
		"expect wan <= 9 size":                                     "nothing counts yet",
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
		if _, err = Run(ctx, s, opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestScenarios runs every scenario, one after the other, and prints the figures of all.
func TestScenarios(t *testing.T) {
	ctx := onBed(t)
	opt := options(ctx, t, os.Stdout)
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
