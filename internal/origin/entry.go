package origin

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"freshet/internal/api"
	"freshet/internal/blob"
	"freshet/internal/content"
	"freshet/internal/identity"
)

// entry is one content that is served; or, without a tree, what is left of one that another
// manifest of the same ref has replaced.
type entry struct {
	record   record // as it was hashed; what became of it at the server is in state
	manifest *content.Manifest
	complete *content.Manifest // manifest with all SHA-1s; nil: it lacks some, and they are not known
	hoh      content.Digest
	size     int64
	tree     *blob.Tree
	gone     atomic.Bool // replaced by a newer manifest of the same ref

	telling sync.Mutex // held while the server is told; before mu

	mu    sync.Mutex // guards the following
	state standing
	known bool // the server was told in this run, or refused it for good
}

// standing is how a content stands with the server.
type standing struct {
	known      content.Digest // manifest that the server took last; zero: none ever
	generation int64          // of it; 0: unknown
	groups     []string       // who may read it; empty: all
	alone      bool           // the server refused the manifest: it is served to those who ask here, alone
}

func newEntry(h *held, tree *blob.Tree) *entry {
	r := h.record
	return &entry{
		record: *r, manifest: h.manifest, complete: h.complete, hoh: h.manifest.HashOfHashes, size: h.manifest.Size, tree: tree,
		state: standing{known: r.Known, generation: r.Generation, groups: r.Groups},
	}
}

// best returns the manifest with the most hashes.
func (e *entry) best() *content.Manifest {
	if e.complete != nil {
		return e.complete
	}
	return e.manifest
}

func (e *entry) standing() standing {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state
}

// told reports whether there is nothing to tell the server.
func (e *entry) told() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known
}

// registered notes what the server took.
func (e *entry) registered(s standing) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state, e.known = s, true
}

// refused notes that the server will not take the manifest.
func (e *entry) refused() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state.alone, e.known = true, true
}

// keep returns the record as it is to be kept.
func (e *entry) keep() record {
	s, r := e.standing(), e.record
	r.Known, r.Generation, r.Groups = s.known, s.generation, s.groups
	return r
}

// allows reports whether devices of the group may read the content. Of one that the server
// never took nobody knows.
func (e *entry) allows(group string) bool {
	s := e.standing()
	return !s.known.IsZero() && (len(s.groups) == 0 || slices.Contains(s.groups, group))
}

// isAlone reports whether the server has another manifest than the one served: no grant can
// name this one.
func (e *entry) isAlone() bool {
	s := e.standing()
	return s.alone || !s.known.IsZero() && s.known != e.record.Manifest
}

// namedBySignature reports whether the publisher's signature names the group now.
func (e *entry) namedBySignature(group string, now time.Time) bool {
	if len(e.record.Signature) == 0 {
		return false
	}
	t, err := identity.TermsOf(e.record.Signature)
	return err == nil && t.Allows(group) && t.Check(0, now) == nil
}

// mayReadWithout reports whether a request without a grant may read e: by a device of a group
// that may, where no grant can be had: the manifest is this distribution point's alone, no
// service answers, or the publisher's signature stands for the grant.
func (o *Origin) mayReadWithout(r *http.Request, e *entry) bool {
	if r.TLS == nil || e.gone.Load() {
		return false
	}
	peer, err := identity.PeerName(*r.TLS)
	if err != nil || peer.Role != identity.RoleDevice || !e.allows(peer.Group) {
		return false
	}
	return e.isAlone() || o.cfg.Grace != nil && o.cfg.Grace() || e.namedBySignature(peer.Group, time.Now())
}

// tryRegister tells the server of a content, and reports whether it has said yes or no.
func (o *Origin) tryRegister(ctx context.Context, e *entry) bool {
	_, err := o.register(ctx, e, nil)
	if err == nil {
		return true
	}
	ref := e.record.ref().String()
	var p *api.Problem
	if !errors.As(err, &p) || p.Status < 400 || p.Status >= 500 || p.Status == http.StatusTooManyRequests {
		o.cfg.Log.Warn("content is not registered", "content", ref, "err", err)
		return false
	}
	e.refused()
	o.cfg.Log.Warn("origin-differs: the server does not take this manifest; it is served to those alone who ask here", "content", ref,
		"manifest", e.record.Manifest.Short(), "err", err)
	return true
}
