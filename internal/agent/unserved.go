package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/freshness"
	"freshet/internal/guard"
	"freshet/internal/identity"
	"freshet/internal/records"
	"freshet/internal/share"
	"freshet/internal/subnet"
	"freshet/internal/wire"
)

// While no service answers, and none ever spoke of a content to this device, others may: those
// who hold it on the subnet, if a publisher whose key is pinned signed it; else the distribution
// points that were named last, of which the guard judges. One device of a subnet asks outside,
// manifest included, and the others ask that device.

const (
	maxAskedOrigins = 3               // distribution points that are asked for one content
	originPatience  = 5 * time.Second // for one of them
	holderPatience  = 5 * time.Second // for one device of the subnet
	holderTries     = 3               // of all that were found: one may not have the manifest yet
	holderPause     = time.Second     // between them
	linksPatience   = 5 * time.Second // for the first look at interfaces, when the agent has just started
)

// errAlone is what there is to say when nobody else can be asked.
var errAlone = errors.New("while no service answers, only what a publisher signed is got, from this subnet or a distribution point: publish it with --sign and pin the key (setting publisherKeys)")

// unserved finds out what a content is while no service answers, as silent says.
func (d *download) unserved(ctx context.Context, silent error) (guard.Request, error) {
	if d.req.URL != "" {
		return guard.Request{}, fmt.Errorf("agent: %s is not known here, and nobody can be asked: %w", d.req, silent)
	}
	begin, ok := d.ofSubnet(ctx)
	if !ok {
		begin, ok = d.ofOrigins(ctx)
	}
	switch {
	case ok:
		return begin, nil
	case ctx.Err() != nil:
		return guard.Request{}, context.Cause(ctx)
	}
	return guard.Request{}, fmt.Errorf("agent: %s is not known here, and nobody can be asked: %w; %w", d.req, silent, errAlone)
}

// ofSubnet asks the subnet. Where it falls to this device to ask outside, others of the subnet
// wait for it until knows is called.
func (d *download) ofSubnet(ctx context.Context) (guard.Request, bool) {
	a := d.a
	d.wait("no service answers; asking the subnet")
	a.dev.Subnet.AwaitLinks(ctx, linksPatience)
	subject, priority := d.subject(ctx), wire.Background
	if d.req.Foreground {
		priority = wire.Foreground
	}
	holders, err := a.dev.Subnet.Seek(ctx, subject, priority)
	if err != nil {
		d.asked = &subject
		return guard.Request{}, false
	}
	for try := 1; ; try++ {
		if rec, from, ok := a.signedBy(ctx, holders, d.req.Ref); ok {
			a.log.Warn("Content Policy does not answer; a device names the content, and its publisher signed it", "content", rec.Ref.String(), "device", from)
			return guard.Request{Record: rec, Source: freshness.FromDevice, Device: from}, true
		}
		if try == holderTries {
			return guard.Request{}, false
		}
		select {
		case <-time.After(holderPause):
		case <-ctx.Done():
			return guard.Request{}, false
		}
	}
}

// subject is what the subnet is asked for: what fits the metadata of a management system, so that
// who holds another issue does not answer; where nothing is expected, the name.
func (d *download) subject(ctx context.Context) wire.Subject {
	begin := guard.Request{Record: records.Record{Ref: d.req.Ref}, Metadata: d.req.Expect, Match: d.req.Match}
	if alg, hash, ok := d.guard.Wanted(ctx, begin); ok {
		return wire.Subject{By: wire.ByMetadataHash, Algorithm: alg, Digest: hash}
	}
	return wire.Subject{By: wire.ByRef, Ref: d.req.Ref}
}

// knows lets the others of the subnet ask this device for what it asked outside, or ask themselves.
func (d *download) knows() {
	if d.asked != nil {
		d.a.dev.Subnet.Sought(*d.asked)
		d.asked = nil
	}
}

// signedBy returns what the newest signature says of those that devices hold.
func (a *Agent) signedBy(ctx context.Context, holders []subnet.Holding, ref content.Ref) (best records.Record, from wire.DeviceID, ok bool) {
	for i := range holders {
		h := &holders[i]
		rec, err := a.recordOf(ctx, h, ref)
		if err != nil {
			a.log.Info("asking a device for a content", "content", ref.String(), "device", h.Device, "err", err)
			continue
		}
		if !ok || newerIssue(&rec, &best) {
			best, from, ok = rec, h.Device, true
		}
	}
	return best, from, ok
}

func newerIssue(a, b *records.Record) bool {
	if a.Ref.Version != b.Ref.Version {
		return a.Ref.Version > b.Ref.Version
	}
	return a.Generation > b.Generation
}

// recordOf gets the manifest and its publisher's signature from a device that holds a content, and
// makes a record of them. What the device says besides counts for nothing: the generation is the
// one that was signed, and bytes are to be had of devices and of the distribution points that were
// named last.
func (a *Agent) recordOf(ctx context.Context, h *subnet.Holding, ref content.Ref) (records.Record, error) {
	if !h.Swarm.IsValid() {
		return records.Record{}, errors.New("it lets nobody in")
	}
	ctx, cancel := context.WithTimeout(ctx, holderPatience)
	defer cancel()
	signature, manifest, err := a.inquire(ctx, h)
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
	reader := identity.Reader{Group: a.opt.Credentials.Name().Group, Now: a.opt.Client.Now()}
	terms, ok, err := identity.PublishersOf(a.opt.Settings).VerifyFor(reader, identity.Signed{ID: m.Ref.ID, Manifest: manifest, Signature: signature})
	if err == nil && !ok {
		err = errors.New("no pinned key signed it")
	}
	if err != nil {
		return records.Record{}, err
	}
	rec := records.Record{
		Ref: m.Ref, Generation: terms.Generation, Manifest: h.Manifest, HashOfHashes: h.HashOfHashes,
		Size: m.Size, Peerable: m.Size > 0, Signature: signature, Inline: manifest,
	}
	a.nameOrigins(&rec)
	return rec, nil
}

// nameOrigins lets a record's bytes be had of the distribution points that were named last, by
// the addresses that all of them have.
func (a *Agent) nameOrigins(rec *records.Record) {
	for _, base := range a.opt.Client.Origins() {
		base = strings.TrimRight(base, "/")
		rec.ManifestURLs = append(rec.ManifestURLs, base+api.ManifestPath(rec.Manifest))
		rec.HashFileURLs = append(rec.HashFileURLs, base+api.HashFilePath(rec.HashOfHashes))
		rec.ContentURLs = append(rec.ContentURLs, base+api.BytesPath(rec.Manifest))
	}
}

// ofOrigins asks the distribution points that were named last.
func (d *download) ofOrigins(ctx context.Context) (guard.Request, bool) {
	d.wait("no service answers; asking the distribution points that were named last")
	bases := d.a.opt.Client.Origins()
	for _, base := range bases[:min(len(bases), maxAskedOrigins)] {
		if begin, ok := d.a.ofOrigin(ctx, base, d.req.Ref); ok {
			return begin, true
		}
	}
	return guard.Request{}, false
}

func (a *Agent) ofOrigin(ctx context.Context, base string, ref content.Ref) (guard.Request, bool) {
	asking, cancel := context.WithTimeout(ctx, originPatience)
	defer cancel()
	reply, err := a.opt.Client.MakeSure(asking, base, ref, api.LszRequest{}, nil)
	if err != nil {
		a.log.Info("asking a distribution point for a content", "content", ref.String(), "origin", base, "err", err)
		return guard.Request{}, false
	}
	rec, err := records.OfLsz(reply)
	if err != nil {
		return guard.Request{}, false
	}
	a.log.Warn("Content Policy does not answer; a distribution point names the content", "content", rec.Ref.String(), "origin", base)
	if rec.Inline == nil { // the subnet asks this device for it
		if rec.Inline, err = share.FetchManifest(ctx, a.opt.Client, rec); err != nil {
			a.log.Info("the manifest is sought later", "content", rec.Ref.String(), "err", err)
		}
	}
	return guard.Request{Record: rec, Source: freshness.FromOrigin, Signed: reply.Signature}, true
}
