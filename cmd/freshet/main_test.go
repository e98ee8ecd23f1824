package main

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets tests and scripts run this binary as the command freshet.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"freshet": main})
}

// TestScripts runs testdata/script: what a newcomer types.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await":   await,
			"succeed": succeed,
		},
	})
}

const scriptPatience = 20 * time.Second

// await FILE waits until a process has made a file.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await FILE")
	}
	poll(ts, args[0], func() bool {
		_, err := os.Stat(ts.MkAbs(args[0]))
		return !errors.Is(err, fs.ErrNotExist)
	})
}

// succeed COMMAND... runs a command again and again until it succeeds.
func succeed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: succeed COMMAND...")
	}
	poll(ts, args[0], func() bool { return ts.Exec(args[0], args[1:]...) == nil })
}

func poll(ts *testscript.TestScript, what string, ok func() bool) {
	deadline := time.After(scriptPatience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("waited too long for %s", what)
		}
	}
}
