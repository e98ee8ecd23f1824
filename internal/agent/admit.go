package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"freshet/internal/identity"
	"freshet/internal/peer"
	"freshet/internal/share"
	"freshet/internal/store"
)

var errNoSwarm = errors.New("no such swarm here")

// admit says whether a peer that dialled may take part in a swarm: a grant, or a publisher's
// signature in its stead, must let it, and it must not be banned. The reasons stay here: the peer
// sees the same closed connection for all of them (design section 4.4).
func (a *Agent) admit(name identity.Name, theirs peer.Hello) (peer.Hello, error) {
	s, err := a.swarmFor(name, theirs, false)
	if err != nil {
		return peer.Hello{}, err
	}
	return s.Hello(), nil
}

// admitDialled says the same of a peer that this device dialled.
func (a *Agent) admitDialled(name identity.Name, theirs peer.Hello) error {
	_, err := a.swarmFor(name, theirs, true)
	return err
}

// swarmFor returns the share in which a peer may take part.
func (a *Agent) swarmFor(name identity.Name, theirs peer.Hello, dialled bool) (*share.Share, error) {
	a.awaitKeys()
	s := a.shareOf(theirs.HashOfHashes)
	var err error
	switch {
	case len(theirs.Grant) > 0:
		err = a.checkGrant(name, theirs)
	case s == nil:
		err = errNoSwarm
	default:
		err = a.doWithout(name, theirs, s, dialled)
	}
	if err != nil {
		return nil, err
	}
	if s == nil || s.Alone() || s.OnHold() {
		return nil, errNoSwarm
	}
	manifest := s.Record().Manifest
	bans, err := a.dev.Store.Bans(context.Background(), manifest)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(bans, func(b store.Ban) bool { return b.Device == theirs.Device.String() }) {
		return nil, fmt.Errorf("device %s is banned for manifest %s", theirs.Device, manifest.Short())
	}
	return s, nil
}

// checkGrant returns nil when a peer's grant is for it, its group and these bytes.
func (a *Agent) checkGrant(name identity.Name, theirs peer.Hello) error {
	self := a.opt.Credentials.Name()
	g, err := identity.VerifyGrant(a.grantKeys(), theirs.Grant, a.opt.Client.Now(), a.opt.Credentials.InGrace())
	switch {
	case err != nil:
		return err
	case a.endpoint.Credentials != nil && name.Group != self.Group, g.Group != self.Group:
		return fmt.Errorf("device %s is of group %q", theirs.Device, g.Group)
	case g.Device != theirs.Device:
		return fmt.Errorf("device %s shows the grant of %s", theirs.Device, g.Device)
	case g.HashOfHashes != theirs.HashOfHashes:
		return fmt.Errorf("device %s shows a grant for other bytes", theirs.Device)
	}
	return nil
}

// doWithout returns nil when a peer of the group needs no grant: what is held here bears a
// publisher's signature that stands for one; or this device dialled the peer for bytes that it
// knows from Content Policy or a believed manifest.
func (a *Agent) doWithout(name identity.Name, theirs peer.Hello, s *share.Share, dialled bool) error {
	switch {
	case a.endpoint.Credentials == nil:
		return fmt.Errorf("device %s shows no grant, and without TLS nobody knows who it is", theirs.Device)
	case name.Group != a.opt.Credentials.Name().Group:
		return fmt.Errorf("device %s is of group %q", theirs.Device, name.Group)
	case dialled && (s.Allowed() || len(s.Record().Grant) > 0):
		return nil
	}
	return s.Vouches(identity.PublishersOf(a.opt.Settings), identity.Reader{Group: name.Group, Now: a.opt.Client.Now()})
}

// awaitKeys waits, at the start, for the keys that sign grants: without them everybody would
// be turned away.
func (a *Agent) awaitKeys() {
	t := time.NewTimer(keysWait)
	defer t.Stop()
	select {
	case <-a.booted:
	case <-t.C:
	}
}
