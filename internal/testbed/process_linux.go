package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	startTime = 60 * time.Second // for a process to come up
	stopTime  = 10 * time.Second // for a process to end when it is asked to
	pollEvery = 20 * time.Millisecond
	askEvery  = 100 * time.Millisecond // agents, what they hold: each answer costs them some
)

// process is one role, running or not. The owner of the bed alone changes it.
type process struct {
	name  string
	ns    string   // without its prefix
	args  []string // with the program before them
	state string   // directory
	log   string   // file
	ready string   // file or socket that is there when it has come up

	cmd    *exec.Cmd     // nil: not started
	ended  chan struct{} // closed when it ended
	wanted bool          // to be running: an end of it is an error
	killed bool          // by a scenario, and not started again
}

// live reports whether it runs.
func (p *process) live() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// starter starts processes from one thread that lives as long as the testbed: a process is
// killed when the thread that started it is gone, even by a kill that nobody can handle. They
// have network namespaces of their own, and share all else with the testbed: in a mount
// namespace of its own, as "ip netns exec" makes one, an agent could not link files into the
// directory that it was handed.
type starter struct{ calls chan func() }

func newStarter() *starter {
	s := &starter{make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: it stays in the namespace of the last process
		for call := range s.calls {
			call()
		}
	}()
	return s
}

func (s *starter) close() { close(s.calls) }

// start starts cmd in a network namespace.
func (s *starter) start(ns string, cmd *exec.Cmd) error {
	done := make(chan error)
	s.calls <- func() {
		err := enter(ns)
		if err == nil {
			err = cmd.Start()
		}
		done <- err
	}
	return <-done
}

// launch starts a process and waits until it has come up.
func (b *bed) launch(ctx context.Context, p *process) error {
	if err := b.begin(p); err != nil {
		return err
	}
	return b.up(ctx, p)
}

// begin starts a process.
func (b *bed) begin(p *process) error {
	if p.live() {
		return fmt.Errorf("testbed: %s runs already", p.name)
	}
	out, err := os.OpenFile(p.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("testbed: log of %s: %w", p.name, err)
	}
	defer out.Close()
	if err := os.Remove(p.ready); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("testbed: %s: what it left: %w", p.name, err)
	}
	// Not of a context: who ends it, and how, is decided here. A group of its own: a ^C is for the testbed.
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := b.starter.start(b.net.ns(p.ns), p.cmd); err != nil {
		p.cmd = nil
		return fmt.Errorf("testbed: starting %s: %w", p.name, err)
	}
	p.ended, p.wanted, p.killed = make(chan struct{}), true, false
	go func(cmd *exec.Cmd, ended chan struct{}) {
		cmd.Wait()
		close(ended)
	}(p.cmd, p.ended)
	return nil
}

// up waits until a process has come up.
func (b *bed) up(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("testbed: %s did not come up in %v", p.name, startTime))
	defer cancel()
	return b.poll(ctx, pollEvery, func() (bool, error) {
		st, err := os.Stat(p.ready)
		if err != nil || st.Mode()&os.ModeSocket != 0 {
			return err == nil, nil
		}
		text, err := os.ReadFile(p.ready)
		return bytes.HasSuffix(text, []byte("\n")), err
	})
}

// end kills a process, or asks it to end, and waits until it has ended.
func (b *bed) end(p *process, signal syscall.Signal) error {
	p.wanted, p.killed = false, signal == syscall.SIGKILL
	if err := p.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("testbed: ending %s: %w", p.name, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTime):
	}
	p.cmd.Process.Kill()
	<-p.ended
	return fmt.Errorf("testbed: %s did not stop in %v; it was killed", p.name, stopTime)
}

// poll waits until ok, asked every now and then, while all processes live that should.
func (b *bed) poll(ctx context.Context, every time.Duration, ok func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		if err := b.dead(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// dead returns an error when a process ended by itself.
func (b *bed) dead() error {
	for _, p := range b.procs {
		if p.wanted && !p.live() {
			return fmt.Errorf("testbed: %s ended by itself: %v", p.name, p.cmd.ProcessState)
		}
	}
	return nil
}

// lastWords are the last lines of the logs of processes that ended by themselves, or of all
// that are named.
func (b *bed) lastWords(names ...string) string {
	var all strings.Builder
	for _, p := range b.procs {
		named := false
		for _, name := range names {
			named = named || name == p.name
		}
		if !named && (!p.wanted || p.live()) {
			continue
		}
		text, err := os.ReadFile(p.log)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		for _, line := range lines[max(0, len(lines)-6):] {
			fmt.Fprintf(&all, "%s: %s\n", p.name, line)
		}
	}
	return all.String()
}

// killAll ends all processes at once.
func (b *bed) killAll() {
	for _, p := range b.procs {
		if p.live() {
			p.cmd.Process.Kill()
		}
	}
	for _, p := range b.procs {
		if p.cmd != nil {
			<-p.ended
		}
	}
}

// newProcess adds a role of the binary.
func (b *bed) newProcess(name, ns, ready string, args ...string) *process {
	return b.addProcess(name, ns, ready, append([]string{b.binary}, args...))
}

// addProcess adds a program; its state and log are in the bed's directory.
func (b *bed) addProcess(name, ns, ready string, args []string) *process {
	p := &process{name: name, ns: ns, state: filepath.Join(b.dir, name), log: filepath.Join(b.dir, name+".log")}
	p.ready = filepath.Join(p.state, ready)
	p.args = append(args, "--state", p.state)
	b.procs = append(b.procs, p)
	return p
}
