package guard

import (
	"context"
	"fmt"
	"time"

	"freshet/internal/freshness"
	"freshet/internal/wire"
)

// act does one duty.
func (g *Guard) act(a *freshness.Action) {
	switch {
	case a.Kind >= freshness.Tally:
		g.remember(a)
	case a.Kind >= freshness.AskPolicy:
		g.actHeld(a)
	case a.Kind == freshness.Broadcast:
		g.opt.Device.Broadcast(wire.Validate(a.Hint))
	default:
		if j := g.jobs[a.Job]; j != nil {
			g.actJob(j, a)
		}
	}
}

// remember does what concerns the brain alone.
func (g *Guard) remember(a *freshness.Action) {
	if a.Kind == freshness.Save {
		g.unsaved = true
		return
	}
	g.counts[a.Outcome]++
	g.say(a, a.Outcome.Text())
	if j := g.jobs[a.Job]; j != nil {
		g.find(j, a.Outcome)
	} else if a.Job == 0 {
		g.findHeld(a.Ref, a.Outcome)
	}
}

// say logs what came of something, with its code.
func (g *Guard) say(a *freshness.Action, what string, more ...any) {
	all := []any{"outcome", a.Outcome.String(), "content", a.Ref.String()}
	if !a.Digest.IsZero() {
		all = append(all, "manifest", a.Digest.Short())
	}
	if a.Device != (freshness.Device{}) {
		all = append(all, "device", a.Device)
	}
	g.log.Info("freshness: "+what, append(all, more...)...)
}

// actJob does what concerns one download.
func (g *Guard) actJob(j *Job, a *freshness.Action) {
	switch a.Kind {
	case freshness.Begin:
		g.begin(j)
	case freshness.Use:
		g.say(a, "a manifest is used", "alone", a.Alone)
		g.find(j, a.Outcome)
		j.step()
		expects := g.opt.Mode == freshness.Enforce && j.expect.State == freshness.IsExpected
		j.do(Order{Kind: Use, Digest: a.Digest, Outcome: a.Outcome, Expects: expects, SHA1: g.opt.Mode != freshness.Off && j.expect.sha1()})
	case freshness.Refuse:
		g.say(a, "a manifest is not taken")
		g.find(j, a.Outcome)
	case freshness.Drop:
		j.step()
		j.do(Order{Kind: Drop, Digest: a.Digest})
	case freshness.Force:
		g.say(a, a.Outcome.Text())
		g.find(j, a.Outcome)
		j.step()
		j.do(Order{Kind: Ask, Outcome: a.Outcome})
		g.force(j)
	case freshness.Fetch:
		g.fetch(j, a.Digest)
	case freshness.TellCatalog:
		g.tellCatalog(j, a.Digest)
	case freshness.Wait, freshness.Pause:
		j.step()
		j.waiting, j.first = true, nil
		g.counts[a.Outcome]++
		g.say(a, a.Outcome.Text(), "waits", a.For.Round(time.Second), "paused", a.Kind == freshness.Pause)
		g.find(j, a.Outcome)
		j.do(Order{Kind: Wait, Outcome: a.Outcome, For: a.For})
	case freshness.Deliver:
		j.do(Order{Kind: Deliver})
	default:
		g.actPeer(j, a)
	}
}

// actPeer does what a download has to do with a device.
func (g *Guard) actPeer(j *Job, a *freshness.Action) {
	switch a.Kind {
	case freshness.Tell:
		j.do(Order{Kind: Tell, Device: a.Device, Hint: wire.Validate(a.Hint)})
	case freshness.LeaveOut:
		j.do(Order{Kind: LeaveOut, Device: a.Device})
	case freshness.Readmit:
		j.do(Order{Kind: Readmit})
	case freshness.Ban, freshness.Unban:
		device, digest, on := a.Device, a.Digest, a.Kind == freshness.Ban
		if on {
			g.counts[a.Outcome]++
		}
		g.say(a, "ban of a device that offers stale content", "banned", on)
		g.spawn(func(ctx context.Context) {
			if err := g.opt.Shelf.Ban(ctx, device, digest, on); err != nil {
				g.log.Warn("keeping a ban", "err", err)
			}
		})
	}
}

// actHeld does what concerns an entry of the device.
func (g *Guard) actHeld(a *freshness.Action) {
	switch a.Kind {
	case freshness.AskPolicy:
		g.ask(a.Ref)
	case freshness.ReadBytes:
		g.readBytes(a.Ref, a.Digest)
	case freshness.AskOwn:
		g.askOwn(a.Ref, a.Digest)
	case freshness.Quarantine:
		g.opt.Device.Hold(a.Digest, true)
	case freshness.Release:
		g.opt.Device.Hold(a.Digest, false)
	case freshness.Retire:
		g.opt.Device.Retire(a.Ref, a.Digest, a.For)
	case freshness.Answer:
		if g.answer != nil {
			g.answer([]byte{byte(a.Ack)})
			g.answer = nil
		}
	}
}

// OrderKind says what an Order asks of a download.
type OrderKind uint8

// Orders.
const (
	Ask      OrderKind = 1 + iota // nothing: services or a distribution point are asked, because of Outcome
	Seek                          // get the manifest of Record, hold it back, and call Job.Found with this order
	Use                           // go on with the manifest Digest
	Drop                          // give up the manifest Digest at once
	Wait                          // nothing for a time For, because of Outcome
	Deliver                       // every check has passed
	Fail                          // end with Err
	Tell                          // send Hint to Device alone; call Job.PeerGone when it is not connected
	LeaveOut                      // have nothing to do with Device in this download
	Readmit                       // who was left out is not any more
)

// Download carries out orders, in the order in which they are given. Do does not block.
type Download interface{ Do(Order) }

// do gives an order.
func (j *Job) do(o Order) { j.download.Do(o) }

// Text says, for people, what a download waits for.
func (o *Order) Text() string {
	switch o.Kind {
	case Ask:
		if o.Outcome != freshness.NoOutcome {
			return fmt.Sprintf("%s: %s", o.Outcome, o.Outcome.Text())
		}
		return "asking Content Policy"
	case Wait:
		return fmt.Sprintf("%s: %s; tried again in %s", o.Outcome, o.Outcome.Text(), o.For.Round(time.Second))
	}
	return ""
}
