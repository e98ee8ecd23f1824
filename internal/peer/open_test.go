package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/memnet"
	"freshet/internal/wire"
)

// inBubble runs f in virtual time over plain connections, and over TLS.
func inBubble(t *testing.T, f func(t *testing.T, ca *identity.CA)) {
	t.Run("plain", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, nil) })
	})
	t.Run("tls", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, newCA(t)) })
	})
}

func TestOpen(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *identity.CA) {
		a, b := newEndpoint(t, ca, 1, 1), newEndpoint(t, ca, 2, 1)
		var names []identity.Name
		b.Admit = func(name identity.Name, theirs Hello) (Hello, error) {
			names = append(names, name)
			return hello(b, theirs.HashOfHashes), nil
		}
		open(t, a, b, content.DigestOf(nil), 64<<10)
		want := identity.Name{}
		if ca != nil {
			want = identity.Name{Fleet: "fleet", Role: identity.RoleDevice, Group: "lab", Device: a.Self}
		}
		if len(names) != 1 || names[0] != want {
			t.Errorf("admitted %v, want %v", names, want)
		}
	})
}

// TestNoGrant: a device without a grant says so, and Admit decides.
func TestNoGrant(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *identity.CA) {
		a, b := newEndpoint(t, ca, 1, 1), newEndpoint(t, ca, 2, 1)
		for _, e := range []*Endpoint{a, b} {
			e.Admit = func(_ identity.Name, theirs Hello) (Hello, error) {
				if theirs.Grant != nil {
					return Hello{}, fmt.Errorf("a grant of %d bytes", len(theirs.Grant))
				}
				return Hello{HashOfHashes: theirs.HashOfHashes, Device: e.Self}, nil
			}
		}
		ra, rb := memnet.Pipe(64 << 10)
		answered := make(chan error, 1)
		go func() {
			_, _, err := b.Answer(t.Context(), rb)
			answered <- err
		}()
		_, theirs, err := a.dialed(t.Context(), ra, Hello{HashOfHashes: content.DigestOf(nil), Device: a.Self})
		if err := errors.Join(err, <-answered); err != nil || theirs.Grant != nil {
			t.Errorf("opened without grants: %+v, %v", theirs, err)
		}
		ra.Close()
	})
}

// counted counts what is read from a connection.
type counted struct {
	net.Conn
	n atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// TestRefusal: whatever the reason, the asker sees a finished TLS handshake and then the end,
// without a byte of the swarm protocol.
func TestRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t)
		b := newEndpoint(t, ca, 2, 1)
		b.Admit = func(_ identity.Name, theirs Hello) (Hello, error) {
			return hello(b, theirs.HashOfHashes), errors.New("no")
		}
		h := func(change func(*Hello)) []byte {
			h := Hello{HashOfHashes: content.DigestOf(nil), Device: deviceID(1), Grant: []byte("g")}
			change(&h)
			return appendHello(nil, h)
		}
		seen := map[string]int64{}
		for name, sent := range map[string][]byte{
			"not admitted":   h(func(*Hello) {}),
			"other device":   h(func(h *Hello) { h.Device = deviceID(3) }),
			"this device":    h(func(h *Hello) { h.Device = deviceID(2) }),
			"not a grant":    append(wire.AppendHandshake(nil, wire.Handshake{Device: deviceID(1)}), wire.AppendHave(nil, 1)...),
			"requests first": bytes.Repeat(wire.AppendRequest(nil, 0, 0, 1), 20),
			"a few bytes":    wire.AppendState(nil, wire.Interested),
			"no handshake":   []byte(strings.Repeat("x", 200)),
			"huge message":   append(wire.AppendHandshake(nil, wire.Handshake{Device: deviceID(1)}), 0xff, 0xff, 0xff, 0xff, 20),
			"huge envelope":  append(wire.AppendHandshake(nil, wire.Handshake{Device: deviceID(1)}), 0, 0x10, 0, 0, 20),
		} {
			ra, rb := memnet.Pipe(64 << 10)
			go b.Answer(t.Context(), rb)
			c := &counted{Conn: ra}
			app, err := clientTLS(t, newEndpoint(t, ca, 1, 1).Credentials, c)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := app.Write(sent); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(app)
			if len(got) != 0 {
				t.Errorf("%s: %d bytes and %v, want the end", name, len(got), err)
			}
			seen[name] = c.n.Load()
		}
		for name, n := range seen {
			if d := n - seen["not admitted"]; d < -8 || d > 8 { // signatures differ in length by a few bytes
				t.Errorf("%s: %d raw bytes, when not admitted %d", name, n, seen["not admitted"])
			}
		}
	})
}

// TestNoMember: who is not of the fleet gets nothing, and nothing is sent to it.
func TestNoMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t)
		server, err := ca.IssueCredentials(identity.Name{Role: identity.RoleServer, Device: deviceID(1)})
		if err != nil {
			t.Fatal(err)
		}
		stranger := newEndpoint(t, newCA(t), 1, 1)
		for name, cred := range map[string]*identity.Credentials{"another CA": stranger.Credentials, "a server": server, "no TLS": nil} {
			member, other := newEndpoint(t, ca, 2, 1), newEndpoint(t, nil, 1, 1)
			admitted := func(identity.Name, Hello) (Hello, error) {
				t.Errorf("%s: was let in", name)
				return Hello{}, nil
			}
			member.Admit, other.Admit, other.Credentials = admitted, admitted, cred

			ra, rb := memnet.Pipe(64 << 10)
			go member.Answer(t.Context(), rb)
			if _, _, err := other.dialed(t.Context(), ra, hello(other, content.Digest{})); err == nil {
				t.Errorf("%s: connected to a member", name)
			}
			ra.Close()

			ra, rb = memnet.Pipe(64 << 10)
			go other.Answer(t.Context(), rb)
			if _, _, err := member.dialed(t.Context(), ra, hello(member, content.Digest{})); err == nil {
				t.Errorf("%s: a member connected to it", name)
			}
			ra.Close()
			synctest.Wait()
		}
	})
}

// TestWrongSwarm: an answer for another swarm than was asked for is no answer.
func TestWrongSwarm(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *identity.CA) {
		a, b := newEndpoint(t, ca, 1, 1), newEndpoint(t, ca, 2, 1)
		b.Admit = func(identity.Name, Hello) (Hello, error) { return hello(b, content.DigestOf([]byte("else"))), nil }
		ra, rb := memnet.Pipe(64 << 10)
		go b.Answer(t.Context(), rb)
		if _, _, err := a.dialed(t.Context(), ra, hello(a, content.DigestOf(nil))); err == nil || !strings.Contains(err.Error(), "another swarm") {
			t.Errorf("error %v, want another swarm", err)
		}
	})
}

// TestAskerChecksToo: the asker admits the answerer, by its certificate's device.
func TestAskerChecksToo(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *identity.CA) {
		a, b := newEndpoint(t, ca, 1, 1), newEndpoint(t, ca, 2, 1)
		a.Admit = func(identity.Name, Hello) (Hello, error) { return Hello{}, errors.New("banned") }
		ra, rb := memnet.Pipe(64 << 10)
		go b.Answer(t.Context(), rb)
		if _, _, err := a.dialed(t.Context(), ra, hello(a, content.DigestOf(nil))); err == nil || !strings.Contains(err.Error(), "banned") {
			t.Errorf("error %v, want banned", err)
		}
		b.Self = deviceID(3) // not its certificate's
		a.Admit = func(identity.Name, Hello) (Hello, error) { return Hello{}, nil }
		ra, rb = memnet.Pipe(64 << 10)
		go b.Answer(t.Context(), rb)
		if _, _, err := a.dialed(t.Context(), ra, hello(a, content.DigestOf(nil))); ca != nil && (err == nil || !strings.Contains(err.Error(), "certificate")) {
			t.Errorf("error %v, want the certificate's device", err)
		}
	})
}

// TestSilentPeer: who says nothing is dropped after the time for opening, and sooner when
// the device stops.
func TestSilentPeer(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *identity.CA) {
		e := newEndpoint(t, ca, 1, 1)
		for name, try := range map[string]func(context.Context, net.Conn) error{
			"answer": func(ctx context.Context, c net.Conn) error { _, _, err := e.Answer(ctx, c); return err },
			"dial": func(ctx context.Context, c net.Conn) error {
				_, _, err := e.dialed(ctx, c, hello(e, content.Digest{}))
				return err
			},
		} {
			c, _ := memnet.Pipe(64 << 10)
			begun := time.Now()
			if err := try(t.Context(), c); err == nil || time.Since(begun) != openTimeout {
				t.Errorf("%s: %v after %s", name, err, time.Since(begun))
			}
			c, _ = memnet.Pipe(64 << 10)
			begun = time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := try(ctx, c); err == nil || time.Since(begun) != time.Second {
				t.Errorf("%s: %v %s after a stop", name, err, time.Since(begun))
			}
			cancel()
		}
	})
}
