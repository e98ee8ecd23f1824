package testbed

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// overTime is what a program may take beyond its time.
const overTime = 45 * time.Second

// stepRun starts a program of package hostile on a host, and waits until it is ready or, where it
// has a time, until it has ended.
func (b *bed) stepRun(ctx context.Context, s *Step) error {
	if len(b.opt.Hostile) == 0 {
		return errors.New("no command for programs was given")
	}
	name := s.On[0]
	p := b.process(name)
	if p == nil {
		p = b.addProcess(name, name, "ready", nil)
	}
	p.args = append(append([]string{}, b.opt.Hostile...), s.Program, "--join", b.token("join"), "--state", p.state)
	if s.Content != "" {
		p.args = append(p.args, "--content", ref(b.s.names(s.Content)[0]))
	}
	if s.Time > 0 {
		p.args = append(p.args, "--for", s.Time.String())
	}
	if err := b.launch(ctx, p); err != nil {
		return fmt.Errorf("%w\n%s", err, b.lastWords(name))
	}
	if s.Time == 0 {
		return nil
	}
	p.wanted = false
	limit := s.Time + overTime
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s on %s did not end in %v", s.Program, name, limit))
	defer cancel()
	err := b.poll(ctx, pollEvery, func() (bool, error) { return !p.live(), nil })
	if err == nil && !p.cmd.ProcessState.Success() {
		err = fmt.Errorf("%s on %s: %v\n%s", s.Program, name, p.cmd.ProcessState, b.lastWords(name))
	}
	if err != nil {
		return err
	}
	return b.sayDone(p)
}

// sayDone tells what a program says that it has done.
func (b *bed) sayDone(p *process) error {
	lines, err := b.loggedFrom(p, 0)
	for _, line := range slices.Backward(lines) {
		if _, what, ok := strings.Cut(line, "msg=done "); ok {
			b.say("    %s: %s", p.name, what)
			break
		}
	}
	return err
}

// gaveForm is what the program taste logs for each run that came.
var gaveForm = regexp.MustCompile(`msg=gave address=(\S+) at=(\d+)$`)

// tastes returns when each holder gave something to a taster since the mark, in order.
func (b *bed) tastes() (map[string][]time.Time, error) {
	given := map[string][]time.Time{}
	for _, h := range b.hosts {
		p := b.process(h.name)
		if p == nil {
			continue
		}
		lines, err := b.loggedFrom(p, 0)
		if err != nil {
			return nil, err
		}
		for _, line := range lines {
			if m := gaveForm.FindStringSubmatch(line); m != nil {
				at, err := strconv.ParseInt(m[2], 10, 64)
				if err != nil {
					return nil, err
				}
				given[m[1]] = append(given[m[1]], time.Unix(0, at))
			}
		}
	}
	return given, nil
}

// stepTasted waits until so many holders have given something: what is expected of them later
// says nothing of those that never did.
func (b *bed) stepTasted(ctx context.Context, s *Step) error {
	n := 0
	ctx, cancel := context.WithTimeoutCause(ctx, untilTime, fmt.Errorf("not so after %v", untilTime))
	defer cancel()
	err := b.poll(ctx, askEvery, func() (bool, error) {
		given, err := b.tastes()
		n = len(given)
		return float64(n) >= s.Limit, err
	})
	if err != nil {
		err = fmt.Errorf("%w; %d have given something", err, n)
	}
	return err
}

// expectTaste adds the figure of how long holders gave something after the mark, or gave nothing.
func (b *bed) expectTaste(_ context.Context, s *Step) error {
	if !b.mark.set {
		return errNoMark
	}
	given, err := b.tastes()
	if err != nil {
		return err
	}
	if len(given) == 0 {
		return errors.New("no holder has given anything to a program taste")
	}
	f := Figure{What: s.Verb + ", s", Limit: s.Time.Seconds(), IsTime: true, Note: fmt.Sprintf("%d holders", len(given))}
	for holder, times := range given {
		took := longestGap(times, b.mark.at, time.Now())
		if s.Verb == "given" {
			took = times[len(times)-1].Sub(b.mark.at)
		}
		if got := took.Seconds(); got > f.Got {
			f.Got, f.Note = got, fmt.Sprintf("%s of %d holders", holder, len(given))
		}
	}
	b.found(f)
	return nil
}

// longestGap is the longest time between two of times that reaches into that from begin to end.
func longestGap(times []time.Time, begin, end time.Time) time.Duration {
	var longest time.Duration
	last := begin
	for _, t := range append(times[:len(times):len(times)], end) {
		if t.After(begin) {
			longest = max(longest, t.Sub(last))
		}
		last = t
	}
	return longest
}
