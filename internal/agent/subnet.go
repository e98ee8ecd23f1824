package agent

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"freshet/internal/api"
	"freshet/internal/election"
	"freshet/internal/lan"
	"freshet/internal/policy"
	"freshet/internal/share"
	"freshet/internal/subnet"
)

const conditionsEvery = time.Minute // between two looks at power, network and load

// newSubnet makes the device's part in the elections of its subnets. It is silent until it has
// keys and a pass.
func (a *Agent) newSubnet() *subnet.Subnet {
	cred := a.opt.Credentials
	network := a.opt.Network
	switch {
	case network != nil:
	case a.opt.Local.IsLoopback():
		network = nowhere{}
	default:
		network = lan.UDP{Port: a.opt.Settings.LANPort(), Local: a.opt.Local}
	}
	a.useDatagrams(a.opt.Settings)
	return subnet.New(subnet.Options{
		LAN: lan.Options{
			Trust:   lan.Trust{Self: a.Device(), Now: a.opt.Client.Now, Denied: cred.Denied, Grace: cred.InGrace},
			Network: network, On: a.datagrams.Load, Log: a.log,
		},
		Begin: a.begins(), Home: a.homeAddress, Weight: a.weight, Conditions: a.conditions(), Seed: share.Seed, LeaseWait: a.opt.leaseWait, Log: a.log,
	})
}

// nowhere is the network of a device that is reached at a loopback address: all those are on this
// machine, and on no subnet.
type nowhere struct{}

// Links implements lan.Network.
func (nowhere) Links() ([]lan.Link, error) { return nil, nil }

// Open implements lan.Network.
func (nowhere) Open(lan.Link, func(netip.AddrPort, []byte) lan.Reason) (lan.Socket, error) {
	return nil, lan.ErrOff
}

// begins returns what datagrams wait for: keys and a pass, which the services give or gave
// before. Where there are none to be sent they wait for nothing.
func (a *Agent) begins() <-chan struct{} {
	if a.datagrams.Load() {
		return a.booted
	}
	return nil
}

// homeAddress returns this device's address as the services see it, as far as is known.
func (a *Agent) homeAddress() netip.Addr {
	if a.opt.Local.IsValid() {
		return a.opt.Local
	}
	if at := a.home.Load(); at != nil {
		return *at
	}
	return netip.Addr{}
}

// findHome finds out from which address the services are called. Nothing is sent.
func (a *Agent) findHome(ctx context.Context) {
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", a.opt.Client.Address())
	if err != nil {
		a.log.Debug("own address", "err", err)
		return
	}
	defer c.Close()
	if at, ok := c.LocalAddr().(*net.UDPAddr); ok {
		own := at.AddrPort().Addr().Unmap()
		a.home.Store(&own)
	}
}

// useDatagrams turns datagrams on or off, as settings say; where there is no subnet they are off.
func (a *Agent) useDatagrams(s policy.Settings) {
	on := s.LANDatagrams() && s.DownloadMode().Peers() && (!a.opt.Local.IsLoopback() || a.opt.Network != nil)
	if a.datagrams.Swap(on) != on {
		a.log.Info("datagrams to the subnet", "on", on)
	}
}

// weight returns what is set, or what the device's kind says.
func (a *Agent) weight(l lan.Link) uint8 {
	if w, set := a.opt.Settings.LeaderWeight(); set {
		return w
	}
	return a.machine.weight(l.Name)
}

// conditions says how the device stands now. Nothing forbids a device to fetch from outside in
// this version; power and network only make it the last to be chosen, and load a later one.
func (a *Agent) conditions() election.Conditions {
	s := a.opt.Settings
	return election.Conditions{
		MayGoOut: true, Battery: s.OnBattery().Or(a.machine.onBattery()), Metered: s.Metered().Or(false),
		Busy: a.busy.look(a.machine.load()),
	}
}

// runSubnet takes part in elections.
func (a *Agent) runSubnet(ctx context.Context) {
	a.spawn(func() { a.keepConditions(ctx) })
	if err := a.dev.Subnet.Run(ctx); err != nil {
		a.log.Warn("datagrams to the subnet", "err", err)
	}
	heard := a.LAN()
	a.log.Info("datagrams of the subnet since the start", "heard", heard.Heard, "dropped", heard.Dropped)
}

func (a *Agent) keepConditions(ctx context.Context) {
	tick := time.NewTicker(conditionsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.dev.Subnet.Conditions(a.conditions())
		case <-ctx.Done():
			return
		}
	}
}

// refreshLAN takes what datagrams need from what KeyValue said: LAN keys, the keys that sign
// passes, and whether datagrams are wanted here; and sees to the pass.
func (a *Agent) refreshLAN(ctx context.Context, kv api.KeyValue) {
	if a.opt.Resolve != nil {
		if s, err := a.opt.Resolve(kv.Settings); err != nil {
			a.log.Warn("settings of the services", "err", err)
		} else {
			a.useDatagrams(s)
		}
	}
	if !a.opt.Local.IsValid() {
		a.findHome(ctx) // the array is told the subnet, without datagrams too
	}
	if !a.datagrams.Load() {
		return
	}
	keys, err := lan.ParseKeys(a.opt.Credentials.Name().Group, kv.LANKeys)
	if err != nil {
		a.log.Warn("LAN keys", "err", err)
		return
	}
	l := a.dev.Subnet.LAN()
	l.SetKeys(keys, a.grantKeys())
	speaker, err := a.opt.Client.Speaker(ctx, filepath.Join(a.opt.State, "identity"))
	if err != nil {
		a.log.Warn("LAN pass", "err", err)
	}
	if speaker != nil {
		l.SetSpeaker(speaker, uint16(a.dev.Port))
	}
}
