package blob

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"time"

	"freshet/internal/api"
	"freshet/internal/identity"
	"freshet/internal/web"
)

// Gate tells what a request over TLS may read: the content that its grant names, when the
// grant is of the device whose certificate the connection showed, and of the group that the
// certificate says now.
type Gate struct {
	Keys  func() []ed25519.PublicKey // that sign grants; called at each request
	Grace func() bool                // grants live longer: no service answers; nil: never
	Now   func() time.Time           // nil: time.Now
}

// Grant returns the request's grant, if it is good.
func (g *Gate) Grant(r *http.Request) (identity.Grant, bool) {
	var none identity.Grant
	if r.TLS == nil {
		return none, false
	}
	peer, err := identity.PeerName(*r.TLS)
	if err != nil || peer.Role != identity.RoleDevice {
		return none, false
	}
	signed, err := base64.StdEncoding.DecodeString(r.Header.Get(identity.GrantHeader))
	if err != nil || len(signed) == 0 {
		return none, false
	}
	now := time.Now
	if g.Now != nil {
		now = g.Now
	}
	grant, err := identity.VerifyGrant(g.Keys(), signed, now(), g.Grace != nil && g.Grace())
	if err != nil || grant.Device != peer.Device || grant.Group != peer.Group {
		return none, false
	}
	return grant, true
}

// NotFound is the one reply to whoever asks for what is unknown or may not read it, so that
// the two cannot be told apart.
func NotFound(w http.ResponseWriter, r *http.Request) {
	web.Problem(w, r, api.Problem{Status: http.StatusNotFound, Type: "unknown-content", Title: "no such content, or no grant for it"})
}
