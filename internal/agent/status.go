package agent

import (
	"context"

	"freshet/internal/policy"
	"freshet/internal/swarm"
)

// Status tells of one content in the cache.
type Status struct {
	Ref        string `json:"content"`
	Manifest   string `json:"manifestDigest"`
	Size       int64  `json:"size"`
	Held       int64  `json:"held"`
	State      string `json:"state"` // partial, complete
	Peers      int    `json:"peers"`
	Lease      bool   `json:"lease,omitempty"`
	FromPeers  int64  `json:"fromPeers"`  // bytes since the agent began
	FromOrigin int64  `json:"fromOrigin"` // bytes since the agent began
	ToPeers    int64  `json:"toPeers"`    // bytes since the agent began
	FromFar    int64  `json:"fromOtherSites,omitempty"`
	ToFar      int64  `json:"toOtherSites,omitempty"`
	Wrong      int64  `json:"wrong,omitempty"`
	Wasted     int64  `json:"wasted,omitempty"`
	Bans       int    `json:"bans,omitempty"`
	Waits      string `json:"waits,omitempty"`
	Failed     string `json:"failed,omitempty"`
}

// Status lists what the cache holds and how each of it stands.
func (a *Agent) Status(ctx context.Context) ([]Status, error) {
	infos, err := a.store.List(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Status, 0, len(infos))
	for _, i := range infos {
		st := Status{Ref: i.Ref.String(), Manifest: i.Digest.String(), Size: i.Size, Held: i.Held, State: string(i.State)}
		if s := a.shareOf(i.HashOfHashes); s != nil && s.record().Manifest == i.Digest {
			st.add(s.facts.Load())
		}
		out = append(out, st)
	}
	return out, nil
}

func (st *Status) add(f *facts) {
	st.Held, st.Peers, st.Lease, st.Waits = st.Size-f.Left, f.Peers, f.Lease == swarm.Mine, f.Waits
	st.FromPeers, st.FromOrigin, st.ToPeers = f.Stats.FromPeers, f.Stats.FromOrigin, f.Stats.Sent
	st.FromFar, st.ToFar = f.Far, f.ToFar
	st.Wrong, st.Wasted, st.Bans = f.Stats.Wrong, f.Stats.Wasted, f.Stats.Bans
	if f.Failed != nil {
		st.Failed = f.Failed.Error()
	}
}

// Settings returns the settings that the agent runs with.
func (a *Agent) Settings() policy.Settings { return a.opt.Settings }
