package admin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"freshet/internal/api"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/web"
	"freshet/internal/wire"
)

// Lifetimes.
const (
	TokenLife  = 365 * 24 * time.Hour // of a token that is made without an expiry
	ticketLife = 24 * time.Hour       // hashing a big directory takes its time
)

// ListTokens answers GET /v1/tokens; no secret is in it.
func (s *Service) ListTokens(w http.ResponseWriter, r *http.Request) {
	all, err := s.Tokens.Tokens(r.Context())
	v, err := listed(all, err, func(t *catalog.Token) api.Token { return showToken(t) })
	reply(w, r, v, err)
}

func showToken(t *catalog.Token) api.Token {
	return api.Token{ID: t.ID, Kind: t.Kind, Group: t.Group, Expires: t.Expires.Unix(), Left: t.Left}
}

// AddToken answers POST /v1/tokens. The reply alone holds the token's text.
func (s *Service) AddToken(w http.ResponseWriter, r *http.Request) {
	var q api.Token
	err := web.ReadJSON(w, r, maxBody, &q)
	var out api.Token
	if err == nil {
		out, err = s.addToken(r.Context(), &q)
	}
	w.Header().Set("Cache-Control", "no-store")
	reply(w, r, out, err)
}

func (s *Service) addToken(ctx context.Context, q *api.Token) (api.Token, error) {
	now := s.Now()
	if err := s.checkToken(ctx, q, now); err != nil {
		return api.Token{}, err
	}
	spec := TokenSpec{Kind: q.Kind, Group: q.Group, Expires: time.Unix(q.Expires, 0), Left: q.Left}
	text, t, err := NewToken(ctx, s.CA, s.Tokens, s.Address, spec, now)
	if err != nil {
		return api.Token{}, err
	}
	s.Log.Info("token made", "token", t.ID, "kind", t.Kind, "group", t.Group, "expires", t.Expires, "left", t.Left)
	out := showToken(&t)
	out.Text = text.String()
	return out, nil
}

// checkToken checks what is asked for and fills in what is not.
func (s *Service) checkToken(ctx context.Context, q *api.Token, now time.Time) error {
	if err := identity.CheckTokenKind(q.Kind); err != nil {
		return badRequest("the kind of token is not known", err)
	}
	switch {
	case q.Kind == identity.TokenJoin && q.Group == "":
		return badRequest("the token names no group", fmt.Errorf("a join token is for the devices of one group"))
	case q.Kind != identity.TokenJoin && q.Group != "":
		return badRequest("the token names a group", fmt.Errorf("only join tokens have one, not %s tokens", q.Kind))
	case q.Kind == identity.TokenJoin:
		if err := s.checkGroups(ctx, []string{q.Group}); err != nil {
			return err
		}
	}
	if q.Expires == 0 {
		q.Expires = now.Add(TokenLife).Unix()
	}
	if q.Expires <= now.Unix() {
		return badRequest("the token would have expired", fmt.Errorf("%s is not in the future", time.Unix(q.Expires, 0).UTC().Format(time.RFC3339)))
	}
	counted := q.Kind == identity.TokenJoin || q.Kind == identity.TokenOrigin
	switch {
	case q.Left == 0 || q.Left < 0:
		q.Left = catalog.Unlimited
	case !counted:
		return badRequest("the token has a count", fmt.Errorf("only join and origin tokens are counted, not %s tokens", q.Kind))
	}
	return nil
}

// TokenSpec says what a new token is to be.
type TokenSpec struct {
	Kind, Group string
	Expires     time.Time
	Left        int // uses; catalog.Unlimited
}

// NewToken draws a token and keeps its hash in the catalog.
func NewToken(ctx context.Context, ca *identity.CA, tokens catalog.Tokens, address string, spec TokenSpec, now time.Time) (identity.Token, catalog.Token, error) {
	text, err := ca.NewToken(spec.Kind, address, spec.Expires)
	if err != nil {
		return text, catalog.Token{}, err
	}
	hash := identity.HashSecret(text.Secret)
	t := catalog.Token{
		ID: hash.ID(), Kind: spec.Kind, Group: spec.Group, Secret: content.Digest(hash),
		Created: now, Expires: text.Expires, Left: spec.Left,
	}
	return text, t, tokens.AddToken(ctx, t)
}

// RemoveToken answers DELETE /v1/tokens/{name}.
func (s *Service) RemoveToken(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	reply(w, r, nil, problemOf(s.Tokens.RemoveToken(r.Context(), name), "token", name))
}

// AddTicket answers POST /v1/tickets.
func (s *Service) AddTicket(w http.ResponseWriter, r *http.Request) {
	var q api.TicketRequest
	err := web.ReadJSON(w, r, maxBody, &q)
	var ticket []byte
	if err == nil {
		ticket, err = s.ticket(r.Context(), &q)
	}
	w.Header().Set("Cache-Control", "no-store")
	reply(w, r, api.TicketReply{Ticket: ticket}, err)
}

// AddInquiry answers POST /v1/inquiries.
func (s *Service) AddInquiry(w http.ResponseWriter, r *http.Request) {
	var q api.InquiryRequest
	err := web.ReadJSON(w, r, maxBody, &q)
	var out api.TicketReply
	if err == nil {
		out.Ticket, err = s.inquiry(&q)
	}
	w.Header().Set("Cache-Control", "no-store")
	reply(w, r, out, err)
}

func (s *Service) inquiry(q *api.InquiryRequest) ([]byte, error) {
	ref, err := parseVersioned(fmt.Sprintf("%s@%d", q.ContentId, q.Version))
	if err != nil {
		return nil, err
	}
	s.Log.Info("a distribution point is to make sure", "content", ref.String())
	return identity.SignInquiry(s.Key, identity.Ticket{Ref: ref, Expires: s.Now().Add(ticketLife)})
}

func (s *Service) ticket(ctx context.Context, q *api.TicketRequest) ([]byte, error) {
	id, err := content.ParseID(q.ContentId)
	if err != nil || q.Version == 0 {
		return nil, badRequest("the content is not well named", fmt.Errorf("id %q, version %d: %w", q.ContentId, q.Version, err))
	}
	t := identity.Ticket{Ref: content.Ref{ID: id, Version: q.Version}, Groups: q.Groups, Expires: s.Now().Add(ticketLife)}
	rand.Read(t.Nonce[:]) // never fails
	if q.Origin != "" {
		if t.Origin, err = wire.ParseDeviceID(q.Origin); err != nil {
			return nil, badRequest("the distribution point is not well named", err)
		}
	}
	if err := s.checkGroups(ctx, q.Groups); err != nil {
		return nil, err
	}
	if _, err := s.freeURLs(ctx, id, q.Urls); err != nil {
		return nil, err
	}
	signed, err := identity.SignTicket(s.Key, t)
	if err != nil {
		return nil, badRequest("the ticket cannot be made", err)
	}
	s.Log.Info("ticket made", "content", t.Ref.String(), "groups", q.Groups, "origin", q.Origin, "id", hex.EncodeToString(t.Nonce[:]))
	return signed, nil
}
