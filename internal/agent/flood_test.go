package agent

import (
	"strings"
	"sync/atomic"
	"testing"

	"freshet/internal/peer"
	"freshet/internal/wire"
)

// accuser is a member that says that pieces were wrong.
type accuser struct {
	*member
	acks atomic.Int64
}

// Message implements peer.Handler.
func (m *accuser) Message(_ *peer.Conn, w wire.Message) {
	if t, rest, err := wire.ParseEnvelope(w.Body); w.Kind == wire.Envelope && err == nil && t == wire.Acknowledge {
		if a, err := wire.ParseAck(rest); err == nil && a.Of == wire.WrongPiece {
			m.acks.Add(1)
		}
	}
}

// TestAccuser: a device that calls pieces wrong again and again makes the holder hash its cache
// once, and hears that it was done.
func TestAccuser(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 3*mib)
	f.publish(g, origin)
	a := f.device("127.0.0.1")
	a.get(g)
	m := &accuser{member: f.member("127.0.0.9", g)}
	c, _, err := m.ep.Dial(t.Context(), a.swarmAddr(), m.hello())
	f.want(err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(t.Context(), m)
	}()
	accuse := func(times int) {
		c.Post(func(b []byte) []byte {
			for range times {
				b = wire.AppendWrongPiece(b, 0)
			}
			return b
		})
	}
	accuse(1000)
	waitFor(t, "an acknowledgement", func() bool { return m.acks.Load() > 0 })
	before := m.acks.Load()
	accuse(1)
	waitFor(t, "another one", func() bool { return m.acks.Load() > before })
	if n := strings.Count(a.log.String(), "the cache was hashed again"); n != 1 {
		t.Errorf("the cache was hashed %d times", n)
	}
	c.Close()
	<-ended
}
