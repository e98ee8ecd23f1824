package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	startTime = 60 * time.Second // for a process to come up
	hashTime  = 30 * time.Minute // for the distribution point to hash the source
	stopTime  = 15 * time.Second // for a process to end when it is asked to
	pollEvery = 20 * time.Millisecond
)

// process is one role, running.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string        // file
	done chan struct{} // closed when it ended
	err  error         // how, after done
}

// run starts the binary with args.
func (f *fleet) run(name string, args ...string) error {
	p := &process{name: name, log: filepath.Join(f.dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	p.cmd = exec.Command(f.opt.Binary, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("demo: starting %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	f.procs = append(f.procs, p)
	return nil
}

// dead returns an error when a process ended by itself.
func (f *fleet) dead() error {
	for _, p := range f.procs {
		select {
		case <-p.done:
			return fmt.Errorf("demo: %s ended: %v", p.name, p.err)
		default:
		}
	}
	return nil
}

// poll waits until ok, while all processes live.
func (f *fleet) poll(ctx context.Context, what string, ok func() (bool, error)) error {
	deadline := time.Now().Add(hashTime)
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		if err := f.dead(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("demo: waited too long for %s", what)
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// await waits until a process has made a file, and returns the address in it; a socket has
// none.
func (f *fleet) await(ctx context.Context, name string) (addr string, err error) {
	deadline := time.Now().Add(startTime)
	err = f.poll(ctx, name, func() (bool, error) {
		st, err := os.Stat(name)
		switch {
		case err != nil && time.Now().After(deadline):
			return false, fmt.Errorf("demo: a process did not come up: %w", err)
		case err != nil:
			return false, nil
		case st.Mode()&os.ModeSocket != 0:
			return true, nil
		}
		b, err := os.ReadFile(name)
		if err != nil || !bytes.HasSuffix(b, []byte("\n")) {
			return false, err
		}
		addr, err = addrPort(string(b))
		return true, err
	})
	return addr, err
}

// explain adds the last lines of the log of each process that ended.
func (f *fleet) explain(err error) error {
	for _, p := range f.procs {
		select {
		case <-p.done:
			b, _ := os.ReadFile(p.log)
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			err = fmt.Errorf("%w\n%s says: %s", err, p.name, strings.Join(lines[max(0, len(lines)-3):], "\n"))
		default:
		}
	}
	return err
}

// stop ends every process, and removes what they left.
func (f *fleet) stop() error {
	var errs []error
	for _, p := range f.procs {
		interrupt(p.cmd.Process)
	}
	timeout := time.After(stopTime)
	for _, p := range f.procs {
		select {
		case <-p.done:
		case <-timeout:
			errs = append(errs, fmt.Errorf("demo: %s did not stop; it was killed", p.name), p.cmd.Process.Kill())
			timeout = closed
		}
	}
	return errors.Join(append(errs, os.RemoveAll(f.dir))...)
}

var closed = func() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()

// interrupt asks a process to stop; Windows can only kill.
func interrupt(p *os.Process) {
	if p.Signal(os.Interrupt) != nil {
		p.Kill()
	}
}
