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
	voucher  identity.Voucher

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
	signature  []byte         // the publisher's, of the manifest that is served; nil: none
	alone      bool           // the server refused the manifest: it is served to those who ask here, alone
	recalled   bool           // the server refused the content: it is served to nobody who has no grant yet
}

func newEntry(h *held, tree *blob.Tree) *entry {
	r := h.record
	return &entry{
		record: *r, manifest: h.manifest, complete: h.complete, hoh: h.manifest.HashOfHashes, size: h.manifest.Size, tree: tree,
		state: standing{known: r.Known, generation: r.Generation, groups: r.Groups, signature: r.Signature},
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

// refused notes that the server will not take the manifest, or nothing of this content.
func (e *entry) refused(recalled bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state.alone, e.state.recalled, e.known = !recalled, recalled, true
}

// keep returns the record as it is to be kept.
func (e *entry) keep() record {
	s, r := e.standing(), e.record
	r.Known, r.Generation, r.Groups, r.Signature = s.known, s.generation, s.groups, s.signature
	return r
}

// allows reports whether devices of the group may read the content. Of one that the server
// never took nobody knows; one that was recalled is nobody's.
func (e *entry) allows(group string) bool {
	s := e.standing()
	return !s.recalled && !s.known.IsZero() && (len(s.groups) == 0 || slices.Contains(s.groups, group))
}

// isAlone reports whether the server has another manifest than the one served: no grant can
// name this one.
func (e *entry) isAlone() bool {
	s := e.standing()
	return s.alone || !s.known.IsZero() && s.known != e.record.Manifest
}

// vouched reports whether the publisher's signature stands for a grant of a device of the
// group. What the server is known to have for other groups alone it does not open.
func (o *Origin) vouched(ctx context.Context, e *entry, group string) bool {
	s := e.standing()
	if o.cfg.Publishers == nil || len(s.signature) == 0 || s.recalled || !s.known.IsZero() && !e.allows(group) {
		return false
	}
	return e.voucher.Admits(o.cfg.Publishers(), identity.Reader{Group: group, Now: time.Now()}, identity.Claim{
		ID: e.record.ContentID, Signature: s.signature,
		Manifest: func() ([]byte, error) { return o.files.Manifest(ctx, e.record.Manifest) },
	}) == nil
}

// mayReadWithout reports whether a request without a grant may read e: by a device of a group
// that may, where the publisher's signature stands for a grant, or none can be had: the
// manifest is this distribution point's alone, or no service answers.
func (o *Origin) mayReadWithout(r *http.Request, e *entry) bool {
	if r.TLS == nil || e.gone.Load() {
		return false
	}
	peer, err := identity.PeerName(*r.TLS)
	if err != nil || peer.Role != identity.RoleDevice {
		return false
	}
	if e.allows(peer.Group) && (e.isAlone() || o.cfg.Grace != nil && o.cfg.Grace()) {
		return true
	}
	return o.vouched(r.Context(), e, peer.Group)
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
	e.refused(p.Type == "recalled")
	if p.Type == "recalled" {
		o.cfg.Log.Warn("the content was recalled and is registered no more", "content", ref, "manifest", e.record.Manifest.Short(), "err", err)
		return true
	}
	o.cfg.Log.Warn("origin-differs: the server does not take this manifest; it is served to those alone who ask here", "content", ref,
		"manifest", e.record.Manifest.Short(), "err", err)
	return true
}
