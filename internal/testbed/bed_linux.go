package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"freshet/internal/localapi"
)

// Options say how scenarios are run.
type Options struct {
	Binary  string    // the freshet to run
	Hostile []string  // a command that is hostile.Run, for steps "run"; its arguments follow
	Dir     string    // where state and contents are kept meanwhile; empty: in memory where there is enough, else the usual place
	Keep    bool      // leave them there, for a look
	Log     io.Writer // told what happens
}

// bed is a running scenario.
type bed struct {
	s       *Scenario
	opt     Options
	binary  string
	dir     string
	net     *network
	starter *starter
	began   time.Time

	procs   []*process // server, origin, then the devices in the scenario's order, then what hosts run
	devices []device
	hosts   []device
	aliases map[string][]end // what "name" named
	frozen  map[string]bool
	faults  faults

	contents map[string]*published
	gets     []*get
	mark     mark   // from where figures count
	inMemory bool   // the directory is
	warmth   warmth // released by the first get
	busy     string // how busy the machine was until the last get was done
	figures  []Figure
}

// Check returns an error that says what this machine lacks for scenarios.
func Check(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("testbed: scenarios need root, for network namespaces: run it with sudo, or in a container with --privileged")
	}
	for _, tool := range []string{"ip", "tc", "nft", "tee"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("testbed: %w: \"test/install test\" installs it", err)
		}
	}
	n := &network{prefix: fmt.Sprintf("%s%d-", nsPrefix, os.Getpid())}
	if err := n.add(ctx, "check"); err != nil {
		return errors.Join(fmt.Errorf("testbed: this machine makes no network namespaces; in a container, start it with --privileged: %w", err), n.remove())
	}
	return errors.Join(n.nft(ctx, "check", faultTable), n.remove())
}

// Run runs a scenario. Figures are returned with an error too; they decide by themselves
// whether they fail. Nothing is left behind, also when ctx ends.
func Run(ctx context.Context, s *Scenario, opt Options) (figures []Figure, err error) {
	if err := errors.Join(removeStale(ctx), removeStaleDirs(opt.Dir)); err != nil {
		return nil, err
	}
	b := &bed{
		s: s, opt: opt, devices: s.devices(), hosts: s.hosts(), began: time.Now(),
		aliases: map[string][]end{}, frozen: map[string]bool{}, contents: map[string]*published{},
	}
	if b.binary, err = filepath.Abs(opt.Binary); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp(opt.Dir, fmt.Sprintf("%s%d-", nsPrefix, os.Getpid())); err != nil {
		return nil, fmt.Errorf("testbed: %w", err)
	}
	b.starter = newStarter()
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.open(ctx); err != nil {
		return nil, b.explain(err)
	}
	for i := range s.Steps {
		step := &s.Steps[i]
		b.say("%s", step.Text)
		if err := b.do(ctx, step); err != nil {
			return b.figures, b.explain(fmt.Errorf("testbed: %s, line %d: %q: %w", s.Name, step.Line, step.Text, err))
		}
	}
	return b.figures, nil
}

var dirForm = regexp.MustCompile(`^` + nsPrefix + `(\d+)-\d+$`)

// removeStaleDirs removes the directories of testbeds whose process was killed.
func removeStaleDirs(parent string) error {
	if parent == "" {
		parent = os.TempDir()
	}
	names, err := filepath.Glob(filepath.Join(parent, nsPrefix+"*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		m := dirForm.FindStringSubmatch(filepath.Base(name))
		if m == nil || exists(filepath.Join(name, keptFile)) {
			continue
		}
		if pid, err := strconv.Atoi(m[1]); err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			if err := errors.Join(unmountMemory(name), os.RemoveAll(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// keptFile marks a directory that somebody wanted to look at.
const keptFile = "kept"

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// open brings up the network, the services, the distribution point and the devices.
func (b *bed) open(ctx context.Context) (err error) {
	if b.opt.Dir == "" && !b.opt.Keep {
		if b.inMemory, err = mountMemory(b.dir, b.s.needs()); err != nil {
			return err
		}
	}
	if b.net, err = build(ctx, b.s); err != nil {
		return err
	}
	server := b.newProcess("server", "far", "server.addr", "server", "--listen", serverAddr.String()+":7443")
	if err := b.launch(ctx, server); err != nil {
		return err
	}
	for i, site := range b.s.Sites {
		if _, err := b.admin(ctx, "site", "add", site.Name, fmt.Sprintf("10.%d.0.0/16", i+1), "--token", b.token("admin")); err != nil {
			return err
		}
	}
	if err := b.pin(ctx); err != nil {
		return err
	}
	origin := b.newProcess("origin", "far", "origin.addr", "origin", "--listen", originAddr.String()+":7444",
		"--root", b.root(), "--join", b.token("origin"))
	if err := b.launch(ctx, origin); err != nil {
		return err
	}
	for _, d := range b.devices {
		args := []string{"agent", "--join", b.token("join")}
		for _, set := range b.s.Settings {
			if slices.ContainsFunc(set.On, func(scope string) bool { return within(d.name, scope) }) {
				args = append(args, "--set", set.Assign)
			}
		}
		if err := b.begin(b.newProcess(d.name, d.name, "freshet.sock", args...)); err != nil {
			return err
		}
	}
	for _, p := range b.procs {
		if err := b.up(ctx, p); err != nil {
			return err
		}
	}
	b.say("%d devices are up; congestion control is %s; files are %s", len(b.devices), b.s.TCP, b.medium())
	b.warmth, err = warm(b.s.written())
	return err
}

// close ends everything and removes what it left.
func (b *bed) close() error {
	b.killAll()
	for _, g := range b.gets {
		g.cancel()
		<-g.done
	}
	b.starter.close()
	err := b.warmth.release()
	if b.net != nil {
		err = errors.Join(err, b.net.remove())
	}
	if b.opt.Keep {
		b.say("logs and states are left in %s", b.dir)
		return errors.Join(err, os.WriteFile(filepath.Join(b.dir, keptFile), nil, 0o600))
	}
	if b.inMemory {
		err = errors.Join(err, unmountMemory(b.dir))
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// medium says where the files of a scenario are.
func (b *bed) medium() string {
	if b.inMemory {
		return "in memory"
	}
	return "on disk"
}

// say tells what happens, and when.
func (b *bed) say(format string, args ...any) {
	fmt.Fprintf(b.opt.Log, "%6.1f s  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// explain adds what those processes said last that an error is about.
func (b *bed) explain(err error) error {
	var late []string
	for _, g := range b.gets {
		if !g.finished() {
			late = append(late, g.device.name)
		}
	}
	if words := b.lastWords(late[:min(2, len(late))]...); words != "" {
		return fmt.Errorf("%w\n%s", err, strings.TrimSuffix(words, "\n"))
	}
	return err
}

func (b *bed) root() string { return filepath.Join(b.dir, "root") }

// token is the file of one of the server's tokens.
func (b *bed) token(kind string) string { return filepath.Join(b.dir, "server", kind+".token") }

// admin runs a command of an administrator, on the far side, and returns what it prints.
func (b *bed) admin(ctx context.Context, args ...string) ([]byte, error) {
	return output(b.net.command(ctx, "far", append([]string{b.binary}, args...)...), "")
}

// agent is how a device's agent is called.
func (b *bed) agent(name string) localapi.Client {
	return localapi.Client{Path: filepath.Join(b.dir, name, "freshet.sock")}
}

// process returns what runs, or ran, under a name; nil for a host that has run nothing yet.
func (b *bed) process(name string) *process {
	i := slices.IndexFunc(b.procs, func(p *process) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return b.procs[i]
}

func (b *bed) isDevice(name string) bool {
	return slices.ContainsFunc(b.devices, func(d device) bool { return d.name == name })
}
