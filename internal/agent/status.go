package agent

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"freshet/internal/content"
	"freshet/internal/guard"
	"freshet/internal/lan"
	"freshet/internal/policy"
	"freshet/internal/share"
	"freshet/internal/store"
	"freshet/internal/subnet"
	"freshet/internal/swarm"
)

// ThisDevice stands for the device itself among leaders.
const ThisDevice = "this device"

// Status tells of one content in the cache.
type Status struct {
	Ref        string `json:"content"`
	Manifest   string `json:"manifestDigest"`
	Size       int64  `json:"size"`
	Held       int64  `json:"held"`
	State      string `json:"state"` // partial, complete
	Peers      int    `json:"peers"`
	Lease      bool   `json:"lease,omitempty"`          // this device fetches from outside the site
	Role       string `json:"role,omitempty"`           // in the elections of its subnet: leading, following, seeking, alone, idle; empty: there are none
	Leader     string `json:"leader,omitempty"`         // on the subnet: a device, or "this device"
	Epoch      uint64 `json:"epoch,omitempty"`          // of its leadership
	FromPeers  int64  `json:"fromPeers"`                // bytes since the agent began
	FromOrigin int64  `json:"fromOrigin"`               // bytes since the agent began
	ToPeers    int64  `json:"toPeers"`                  // bytes since the agent began
	FromFar    int64  `json:"fromOtherSites,omitempty"` // as far as the array said who is there
	ToFar      int64  `json:"toOtherSites,omitempty"`   // likewise
	Wrong      int64  `json:"wrong,omitempty"`
	Wasted     int64  `json:"wasted,omitempty"`
	Bans       int    `json:"bans,omitempty"`
	Waits      string `json:"waits,omitempty"`
	Simple     string `json:"simpleMode,omitempty"` // why its bytes come from origins alone
	Failed     string `json:"failed,omitempty"`

	Freshness *guard.Finding `json:"freshness,omitempty"` // what came of comparing the content last

	// Unreachable says why devices of other sites do not hear of this one (DODownloadMode 3).
	Unreachable string `json:"unreachable,omitempty"`

	Users []int `json:"-"` // ids of the local users who asked for it: whoever tells others decides by them
}

// Status lists what the cache holds and how each of it stands.
func (a *Agent) Status(ctx context.Context) ([]Status, error) {
	infos, err := a.dev.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	users, err := a.users(ctx)
	if err != nil {
		return nil, err
	}
	unreachable := ""
	if why := a.unreachable.Load(); why != nil {
		unreachable = *why
	}
	out := make([]Status, 0, len(infos))
	for _, i := range infos {
		st := Status{Ref: i.Ref.String(), Manifest: i.Digest.String(), Size: i.Size, Held: i.Held, State: string(i.State),
			Unreachable: unreachable, Users: users[i.Digest]}
		if s := a.shareOf(i.HashOfHashes); s != nil && s.Record().Manifest == i.Digest {
			st.add(s.Facts())
			st.FromFar, st.ToFar = s.Far()
		}
		out = append(out, st)
	}
	out = append(out, a.begun(infos, users)...)
	out = a.waiting(out)
	a.findings(out)
	return out, nil
}

// waiting adds why downloads wait, of which nothing is here yet, or another issue than they want.
func (a *Agent) waiting(out []Status) []Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	for d := range a.downloads {
		rec, waits := d.state()
		if waits == "" {
			continue
		}
		ref := rec.Ref.String()
		at := slices.IndexFunc(out, func(s Status) bool { return s.Ref == ref })
		if at < 0 {
			at = len(out)
			out = append(out, Status{Ref: ref, Manifest: rec.Manifest.String(), Size: rec.Size, State: string(store.Partial)})
		}
		if out[at].Waits == "" {
			out[at].Waits = waits
		}
		out[at].Users = append(slices.Clone(out[at].Users), d.req.Owner.UID)
	}
	return out
}

// findings adds what came of comparing each content last.
func (a *Agent) findings(out []Status) {
	g := a.theGuard()
	for i := range out {
		ref, err := content.ParseRef(out[i].Ref)
		if g == nil || err != nil {
			continue
		}
		if f, ok := g.Finding(ref); ok {
			out[i].Freshness = &f
		}
	}
}

// begun lists the downloads that have no entry yet: they wait for metadata, or are in simple mode.
func (a *Agent) begun(held []store.Info, users map[content.Digest][]int) []Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Status
	for _, s := range a.shares {
		rec := s.Record()
		if !rec.Wanted || slices.ContainsFunc(held, func(i store.Info) bool { return i.Digest == rec.Manifest }) {
			continue
		}
		st := Status{Ref: rec.Ref.String(), Manifest: rec.Manifest.String(), Size: rec.Size, State: string(store.Partial),
			Users: users[rec.Manifest]}
		st.add(s.Facts())
		out = append(out, st)
	}
	slices.SortFunc(out, func(x, y Status) int { return strings.Compare(x.Manifest, y.Manifest) })
	return out
}

// users returns who asked for each content, by its manifest.
func (a *Agent) users(ctx context.Context) (map[content.Digest][]int, error) {
	recs, err := a.dev.Records.All(ctx)
	if err != nil {
		return nil, err
	}
	by := make(map[content.Digest][]int, len(recs))
	for i := range recs {
		by[recs[i].Manifest] = recs[i].Askers.Users
	}
	return by, nil
}

func (st *Status) add(f *share.Facts) {
	st.Held, st.Peers, st.Lease, st.Waits = st.Size-f.Left, f.Peers, f.Reach == swarm.ReachAll, f.Waits
	st.FromPeers, st.FromOrigin, st.ToPeers = f.Stats.FromPeers, f.Stats.FromOrigin, f.Stats.Sent
	st.Role, st.Epoch = f.Role.String(), f.Epoch
	switch f.Role {
	case subnet.Leading:
		st.Leader = ThisDevice
	case subnet.Following:
		st.Leader = f.Leader.String()
	}
	st.Wrong, st.Wasted, st.Bans = f.Stats.Wrong, f.Stats.Wasted, f.Stats.Bans
	if f.Left > 0 {
		st.Simple = f.Simple
	}
	if f.Failed != nil {
		st.Failed = f.Failed.Error()
	}
}

// LAN tells of the datagrams that came from the subnet since the agent began.
type LAN struct {
	Heard   uint64            `json:"heard"`   // and used
	Dropped map[string]uint64 `json:"dropped"` // by [lan.Reason]; the device's own, and second copies, are normal
}

// LAN returns what became of the datagrams of the subnet.
func (a *Agent) LAN() LAN {
	dropped := a.dev.Subnet.LAN().Drops()
	taken := lan.Taken.String()
	heard := dropped[taken]
	delete(dropped, taken)
	return LAN{Heard: heard, Dropped: dropped}
}

// Bad returns how many were dropped that nobody of the group should have sent, or that this device
// had no room for.
func (l LAN) Bad() map[string]uint64 {
	bad := maps.Clone(l.Dropped)
	for _, normal := range []lan.Reason{lan.Own, lan.Replay} {
		delete(bad, normal.String())
	}
	return bad
}

// Settings returns the settings that the agent runs with.
func (a *Agent) Settings() policy.Settings { return a.opt.Settings }

// Traffic is what went between this device and another one.
type Traffic = share.Traffic

// Traffic lists with whom this device exchanged bytes, by swarm and device.
func (a *Agent) Traffic() []Traffic {
	a.mu.Lock()
	shares := slices.Collect(maps.Values(a.shares))
	a.mu.Unlock()
	var out []Traffic
	for _, s := range shares {
		out = s.AppendTraffic(out)
	}
	slices.SortFunc(out, func(x, y Traffic) int {
		return cmp.Or(bytes.Compare(x.HashOfHashes[:], y.HashOfHashes[:]), bytes.Compare(x.Device[:], y.Device[:]))
	})
	return out
}
