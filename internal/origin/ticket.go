package origin

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"time"

	"freshet/internal/content"
	"freshet/internal/identity"
)

// permission is a ticket that was checked, with its signed bytes.
type permission struct {
	identity.Ticket
	signed []byte
}

// permit checks the ticket of a publisher's request against the content in its path.
func (o *Origin) permit(r *http.Request) (permission, error) {
	return o.permitFor(r, r.PathValue("id"), identity.VerifyTicket)
}

// verifier opens one kind of ticket.
type verifier func(keys []ed25519.PublicKey, signed []byte, now time.Time) (identity.Ticket, error)

// permitFor is permit for this content id and kind of ticket.
func (o *Origin) permitFor(r *http.Request, id string, verify verifier) (permission, error) {
	refused := func(detail string) (permission, error) {
		return permission{}, problem(http.StatusForbidden, "no-ticket", "no permission for this content here", detail)
	}
	if r.TLS == nil {
		return refused("the connection is not TLS")
	}
	ref, err := content.ParseRef(id + "@" + r.PathValue("version"))
	if err != nil {
		return permission{}, problem(http.StatusBadRequest, "bad-request", "no content has this name", err.Error())
	}
	signed, err := base64.StdEncoding.DecodeString(r.Header.Get(identity.TicketHeader))
	if err != nil || len(signed) == 0 {
		return refused("the request carries no ticket; \"freshet publish\" gets one from the server")
	}
	t, err := verify(o.cfg.Keys(), signed, time.Now())
	switch {
	case err != nil:
		return refused(err.Error())
	case t.Ref != ref:
		return refused("the ticket is for " + t.Ref.String() + ", not for " + ref.String())
	case t.Origin != [16]byte{} && t.Origin != o.cfg.Self:
		return refused("the ticket is for the distribution point " + t.Origin.String() + ", this one is " + o.cfg.Self.String())
	case o.isSpent(t.Nonce):
		return refused("the ticket was used; publish again for a new one")
	}
	return permission{t, signed}, nil
}

func (o *Origin) isSpent(nonce [16]byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.spent[nonce]
	return ok
}

// spend marks a ticket as used, and forgets those that have expired.
func (o *Origin) spend(t permission) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	for nonce, expires := range o.spent {
		if now.After(expires) {
			delete(o.spent, nonce)
		}
	}
	o.spent[t.Nonce] = t.Expires
}
