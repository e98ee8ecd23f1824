package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"freshet/internal/api"
	"freshet/internal/identity"
)

// Speaker returns what this device speaks with in LAN datagrams, kept in dir, the directory of
// its credentials: a key, and the server's pass for it in the certificate's group. A pass is
// asked for where there is none that fits, and at half of its life; when that fails, a pass
// that still fits comes with the error, and may be used.
func (c *Client) Speaker(ctx context.Context, dir string) (*identity.Speaker, error) {
	if c.opt.Credentials == nil {
		return nil, fmt.Errorf("client: lan pass at %s: there is no certificate, only a token", c.opt.Address)
	}
	s, err := identity.OpenSpeaker(dir)
	if err != nil {
		return nil, err
	}
	fits := s.Pass.Fits(s.Public(), c.opt.Credentials.Name())
	if fits && c.Now().Before(s.Pass.RenewAt()) {
		return s, nil
	}
	renewed, err := c.lanPass(ctx, s)
	if err == nil {
		err = renewed.Save(dir)
	}
	switch {
	case err == nil:
		return renewed, nil
	case fits:
		return s, err
	}
	return nil, err
}

func (c *Client) lanPass(ctx context.Context, s *identity.Speaker) (*identity.Speaker, error) {
	var reply api.LANPassReply
	r, err := c.call(ctx, c.ask("lan pass", c.serverURL("/v1/lanpass"), api.LANPassRequest{Key: s.Public()}))
	if err == nil {
		err = decode("lan pass", r, &reply)
	}
	if err != nil {
		return nil, err
	}
	renewed, err := s.With(reply.Pass)
	if err == nil && !renewed.Pass.Fits(s.Public(), c.opt.Credentials.Name()) {
		err = errors.New("it is for another device or group")
	}
	if err != nil {
		return nil, fmt.Errorf("client: lan pass at %s: %w", c.opt.Address, err)
	}
	return renewed, nil
}

// clock corrects this machine's clock by what the server says with each reply.
type clock struct {
	offset atomic.Int64 // ns to add
}

const (
	minOffset = 2 * time.Second  // a smaller one cannot be told from the second that a reply names
	maxTrip   = 10 * time.Second // a slower reply says too little
)

// learn takes the time that a reply of the server names.
func (k *clock) learn(head http.Header, sent, received time.Time) {
	trip := received.Sub(sent)
	date, err := http.ParseTime(head.Get("Date"))
	if err != nil || trip < 0 || trip > maxTrip {
		return
	}
	// The reply was made halfway, and half a second after the second that it names, give or take.
	offset := date.Add(time.Second / 2).Sub(sent.Add(trip / 2))
	if offset.Abs() < minOffset+trip/2 {
		offset = 0
	}
	k.offset.Store(int64(offset))
}

// Now returns the time by the server's clock, as of its last reply; this machine's before the
// first one.
func (c *Client) Now() time.Time { return time.Now().Add(time.Duration(c.clock.offset.Load())) }
