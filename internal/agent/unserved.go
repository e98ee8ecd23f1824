package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/freshness"
	"freshet/internal/guard"
	"freshet/internal/identity"
	"freshet/internal/metadata"
	"freshet/internal/peer"
	"freshet/internal/records"
	"freshet/internal/subnet"
	"freshet/internal/wire"
)

// While no service answers, and none ever spoke of a content to this device, others may: those
// who hold it on the subnet, and the distribution points that were named last. What they name is
// used when a publisher whose key is pinned signed it, or as the guard decides.

const (
	maxAskedOrigins = 3 // distribution points that are asked for one content
	maxAskedHolders = 3
	originPatience  = 5 * time.Second
	holderPatience  = 5 * time.Second
)

// policyUnserved finds out what a content is.
func (a *Agent) policyUnserved(ctx context.Context, req Request) (guard.Request, bool) {
	if req.URL != "" {
		return guard.Request{}, false
	}
	subject := wire.Subject{By: wire.ByRef, Ref: req.Ref}
	if begin, ok := a.policyOfSubnet(ctx, subject, req); ok {
		return begin, true
	}
	defer a.dev.Subnet.Sought(subject)
	bases := a.opt.Client.Origins()
	for _, base := range bases[:min(len(bases), maxAskedOrigins)] {
		if begin, ok := a.policyOfOrigin(ctx, base, req); ok {
			return begin, true
		}
	}
	return guard.Request{}, false
}

func (a *Agent) policyOfOrigin(ctx context.Context, base string, req Request) (guard.Request, bool) {
	ctx, cancel := context.WithTimeout(ctx, originPatience)
	defer cancel()
	reply, err := a.opt.Client.MakeSure(ctx, base, req.Ref, api.LszRequest{}, nil)
	if err != nil {
		a.log.Info("asking a distribution point for a content", "content", req.Ref.String(), "origin", base, "err", err)
		return guard.Request{}, false
	}
	rec, err := records.OfLsz(reply)
	if err != nil {
		return guard.Request{}, false
	}
	a.log.Warn("Content Policy does not answer; a distribution point names the content", "content", rec.Ref.String(), "origin", base)
	rec.Wanted, rec.Askers = true, req.asker()
	return guard.Request{Record: rec, Source: freshness.FromOrigin, Signed: reply.Signature}, true
}

// policyOfSubnet asks the subnet, the newest issue first.
func (a *Agent) policyOfSubnet(ctx context.Context, subject wire.Subject, req Request) (guard.Request, bool) {
	priority := wire.Background
	if req.Foreground {
		priority = wire.Foreground
	}
	sought, cancel := context.WithTimeout(ctx, holderPatience)
	defer cancel()
	holders, err := a.dev.Subnet.Seek(sought, subject, priority)
	if err != nil {
		return guard.Request{}, false
	}
	slices.SortFunc(holders, func(x, y subnet.Holding) int { return cmp.Compare(y.Generation, x.Generation) })
	for i := range holders[:min(len(holders), maxAskedHolders)] {
		rec, err := a.recordOf(ctx, &holders[i], req.Ref)
		if err != nil {
			a.log.Info("asking a device for a content", "content", req.Ref.String(), "device", holders[i].Device, "err", err)
			continue
		}
		a.log.Warn("Content Policy does not answer; a device names the content", "content", rec.Ref.String(), "device", holders[i].Device)
		rec.Wanted, rec.Askers = true, req.asker()
		return guard.Request{Record: rec, Source: freshness.FromDevice, Device: holders[i].Device}, true
	}
	return guard.Request{}, false
}

// recordOf gets manifest and signature from a device that holds a content, and makes a record of
// them: bytes are to be had of devices, and of the distribution points that were named last.
func (a *Agent) recordOf(ctx context.Context, h *subnet.Holding, ref content.Ref) (records.Record, error) {
	if !h.Swarm.IsValid() {
		return records.Record{}, errors.New("it lets nobody in")
	}
	ctx, cancel := context.WithTimeout(ctx, holderPatience)
	defer cancel()
	manifest, signature, err := a.metadataOf(ctx, h)
	if err != nil {
		return records.Record{}, err
	}
	m, err := content.ParseManifest(manifest)
	switch {
	case err != nil:
		return records.Record{}, err
	case content.DigestOf(manifest) != h.Manifest, m.HashOfHashes != h.HashOfHashes:
		return records.Record{}, errors.New("its manifest is not the one that it named")
	case m.Ref.ID != ref.ID || ref.Version != 0 && m.Ref.Version != ref.Version:
		return records.Record{}, fmt.Errorf("its manifest is of %s", m.Ref)
	}
	rec := records.Record{
		Ref: m.Ref, Manifest: h.Manifest, HashOfHashes: h.HashOfHashes, Size: m.Size, Peerable: m.Size > 0,
		Signature: signature, Inline: manifest,
	}
	for _, base := range a.opt.Client.Origins() {
		rec.ManifestURLs = append(rec.ManifestURLs, base+"/metadata/"+h.Manifest.String())
		rec.HashFileURLs = append(rec.HashFileURLs, base+"/pieceshash/"+h.HashOfHashes.String()+".bin")
		rec.ContentURLs = append(rec.ContentURLs, base+"/bytes/"+h.Manifest.String())
	}
	return rec, nil
}

// metadataOf gets the manifest of a device, and the publisher's signature of it.
func (a *Agent) metadataOf(ctx context.Context, h *subnet.Holding) (manifest, signature []byte, err error) {
	e := peer.Endpoint{
		Self: a.Device(), Credentials: a.endpoint.Credentials, Local: a.opt.Local, Receive: a.dev.Receive, Send: a.endpoint.Send, Admit: a.admitGiver,
	}
	c, _, err := e.Dial(ctx, h.Swarm.String(), peer.Hello{HashOfHashes: h.HashOfHashes, Device: a.Device()})
	if err != nil {
		return nil, nil, err
	}
	g := &getsParts{a: a, want: wire.GetManifest, done: make(chan struct{})}
	c.Post(func(b []byte) []byte { return wire.AppendGet(b, wire.GetManifest, 0) })
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx, g) }()
	select {
	case <-g.done:
		cancel()
		<-ran
		return g.manifest, g.signature, g.err
	case err := <-ran:
		return nil, nil, err
	}
}

// admitGiver lets a device of the own group give metadata: it gets nothing in return.
func (a *Agent) admitGiver(name identity.Name, theirs peer.Hello) (peer.Hello, error) {
	if a.endpoint.Credentials == nil || name.Group != a.opt.Credentials.Name().Group {
		return peer.Hello{}, fmt.Errorf("device %s is of group %q", theirs.Device, name.Group)
	}
	return peer.Hello{}, nil
}

// getsParts is a peer that takes a manifest and its signature, and nothing else.
type getsParts struct {
	a    *Agent
	want wire.Type
	buf  []byte

	manifest, signature []byte
	err                 error
	done                chan struct{} // closed when the fields above are final
}

var _ peer.Handler = (*getsParts)(nil)

// Layout implements peer.Handler.
func (g *getsParts) Layout() *content.Layout { return nil }

// Run implements peer.Handler: nothing was asked for.
func (g *getsParts) Run(_ *peer.Conn, _ int, b []byte) { g.a.dev.Receive.Put(b) }

// Message implements peer.Handler.
func (g *getsParts) Message(c *peer.Conn, m wire.Message) {
	if m.Kind != wire.Envelope || g.want == 0 {
		return
	}
	kind, rest, err := wire.ParseEnvelope(m.Body)
	if err != nil || kind != wire.PartOf {
		return
	}
	p, err := wire.ParsePart(rest)
	if err != nil || p.Of != g.want || p.Offset != uint64(len(g.buf)) {
		return
	}
	if len(p.Frame) > 0 {
		b, err := metadata.Unpack(p)
		if err != nil {
			g.end(err)
			return
		}
		g.buf = append(g.buf, b...)
	}
	if uint64(len(g.buf)) >= p.Total {
		g.whole()
	}
	if want, offset := g.want, uint64(len(g.buf)); want != 0 {
		c.Post(func(b []byte) []byte { return wire.AppendGet(b, want, offset) })
	}
}

// whole goes on when all of what is wanted is there.
func (g *getsParts) whole() {
	if g.want == wire.GetManifest {
		g.manifest, g.buf, g.want = g.buf, nil, wire.GetSignature
		return
	}
	g.signature = g.buf
	g.end(nil)
}

func (g *getsParts) end(err error) {
	g.err, g.want = err, 0
	close(g.done)
}
