package origin

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"freshet/internal/api"
	"freshet/internal/blob"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/web"
)

const (
	lszInline   = 16 << 10 // bytes of manifest and raw hash file that a reply carries
	lszReadings = 3        // for one question; its files change faster than they are read after that
	staleRetry  = 60       // seconds until it is worth while to ask again whether stale files were changed, or can be read
	readRetry   = 2        // seconds until it is worth while to ask how a reading went
	diffNames   = 3        // files that a problem names
)

// question is a device's, or an administrator's, on one content.
type question struct {
	ref   content.Ref
	group string // of the device; empty: an administrator asks, who may see all
	want  []content.MetadataEntry
	match content.Match
	force bool
}

// makeSure answers POST /lsz/{contentId}/{version}.
func (o *Origin) makeSure(w http.ResponseWriter, r *http.Request) {
	q, err := o.question(w, r)
	if err == nil && q.ref.Version == 0 {
		q.ref.Version = o.newest(r.Context(), q)
	}
	if err == nil && (q.ref.Version == 0 || !o.mayAsk(r.Context(), q)) {
		blob.NotFound(w, r)
		return
	}
	var reply *api.LszReply
	if err == nil {
		reply, err = o.answer(r.Context(), q)
	}
	switch {
	case errors.Is(err, errUnknown):
		blob.NotFound(w, r)
	case err != nil:
		web.Fail(w, r, err)
	default:
		w.Header().Set("Cache-Control", "private, no-store")
		web.WriteJSON(w, reply)
	}
}

var errUnknown = errors.New("the content is not known here")

// question reads who asks for what.
func (o *Origin) question(w http.ResponseWriter, r *http.Request) (question, error) {
	q, err := o.asker(r)
	if err != nil {
		return q, err
	}
	var body api.LszRequest
	if err := web.ReadJSON(w, r, api.MaxLsz, &body); err != nil {
		return q, err
	}
	q.force = body.Force
	if body.Match != "" {
		if q.match, err = content.ParseMatch(body.Match); err != nil {
			return q, badQuestion(err)
		}
	}
	if q.want, err = entries(body.Files); err != nil {
		return q, badQuestion(err)
	}
	return q, nil
}

func badQuestion(err error) error {
	return problem(http.StatusBadRequest, "bad-request", "the expected files are not well formed", err.Error())
}

// asker lets in devices by certificate, and administrators by a ticket for the content.
func (o *Origin) asker(r *http.Request) (q question, err error) {
	if r.Header.Get(identity.TicketHeader) != "" {
		t, err := o.permitFor(r, r.PathValue("contentId"), identity.VerifyInquiry)
		q.ref = t.Ref
		return q, err
	}
	refused := problem(http.StatusForbidden, "not-authorized", "this call is not open to everyone", "it takes a certificate with role device, or an administrator's ticket")
	if r.TLS == nil {
		return q, refused
	}
	peer, err := identity.PeerName(*r.TLS)
	if err != nil || peer.Role != identity.RoleDevice {
		return q, refused
	}
	q.group = peer.Group
	q.ref.ID, err = content.ParseID(r.PathValue("contentId"))
	if v := r.PathValue("version"); err == nil && v != "0" {
		q.ref.Version, err = content.ParseVersion(v)
	}
	if err != nil {
		return q, problem(http.StatusBadRequest, "bad-request", "no content has this name", fmt.Sprintf("%q, version %q", r.PathValue("contentId"), r.PathValue("version")))
	}
	return q, nil
}

// entries reads expected files. An empty list expects nothing.
func entries(files []api.ExpectedFile) ([]content.MetadataEntry, error) {
	if len(files) > content.MaxFiles {
		return nil, fmt.Errorf("%d files, more than %d", len(files), content.MaxFiles)
	}
	var want []content.MetadataEntry
	for _, f := range files {
		alg, err := content.ParseAlgorithm(f.Algorithm)
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", f.Name, err)
		}
		digest, err := hex.DecodeString(f.Digest)
		if err != nil || len(digest) != alg.Size() {
			return nil, fmt.Errorf("file %q: digest %q is not the %d hex digits of a %s", f.Name, f.Digest, 2*alg.Size(), alg)
		}
		want = append(want, content.MetadataEntry{Algorithm: alg, Digest: digest, Name: f.Name})
	}
	if len(want) > 0 {
		if _, err := content.MetadataHash(want); err != nil {
			return nil, err
		}
	}
	return want, nil
}

// mayAsk reports whether the asker may know of the content: an administrator may, and a
// device of a group that may read it. Which groups may is known of what was registered once,
// and of what a publisher signed.
func (o *Origin) mayAsk(ctx context.Context, q question) bool {
	e, ok := o.current(q.ref)
	return !ok || q.group == "" || e.allows(q.group) || o.vouched(ctx, e, q.group)
}

// newest returns the newest version of a content that the asker may know of, 0 when there is
// none.
func (o *Origin) newest(ctx context.Context, q question) uint64 {
	var all []uint64
	o.mu.Lock()
	for ref := range o.byRef {
		if ref.ID == q.ref.ID {
			all = append(all, ref.Version)
		}
	}
	o.mu.Unlock()
	slices.Sort(all)
	for _, v := range slices.Backward(all) {
		q.ref.Version = v
		if o.mayAsk(ctx, q) {
			return v
		}
	}
	return 0
}

// answer finds the manifest that fits, reading the files again where that may help: once for
// all who ask, and never twice while no file's size, mtime or ctime changes.
func (o *Origin) answer(ctx context.Context, q question) (*api.LszReply, error) {
	for range lszReadings {
		e, ok := o.current(q.ref)
		need, all, err := o.need(e, ok, q)
		if err != nil {
			return nil, err
		}
		if !need {
			if !o.mayAsk(ctx, q) { // it was registered meanwhile, for others
				return nil, errUnknown
			}
			if err := o.settled(ctx, e); err != nil {
				return nil, err
			}
			return o.reply(ctx, e)
		}
		f := o.reread(q.ref, all)
		ended, err := o.wait(ctx, f)
		switch {
		case !ended && err != nil:
			return nil, err
		case !ended || errors.Is(err, errBusy) || errors.Is(err, blob.ErrChanged):
			done, total := f.progress()
			return &api.LszReply{Outcome: api.LszReading, Done: done, Total: total, RetrySecs: readRetry}, nil
		case errors.As(err, new(unreadable)):
			return nil, stale("its files cannot be read; its log says why")
		case err != nil:
			return nil, unavailable()
		}
	}
	return nil, stale("its files change faster than they can be read")
}

// settled waits, as long as an asker waits, while the reading that made e tells the server of it:
// before that nobody knows whether it is the catalog's.
func (o *Origin) settled(ctx context.Context, e *entry) error {
	o.mu.Lock()
	f := o.flights[e.record.ref()]
	o.mu.Unlock()
	if f == nil || e.told() {
		return nil
	}
	_, _ = o.wait(ctx, f) // how the reading ended, its asker hears
	return ctx.Err()
}

// need says whether the files must be read before q can be answered, and whether all bytes; an
// error is the answer.
func (o *Origin) need(e *entry, ok bool, q question) (need, all bool, err error) {
	if !ok {
		if !q.force || !o.dirExists(q.ref) {
			return false, false, errUnknown
		}
		return true, false, nil
	}
	if e.tree.Check() != nil {
		return true, false, nil
	}
	if len(q.want) == 0 {
		return false, false, nil
	}
	d, err := content.Compare(e.best(), q.want, q.match)
	if err != nil {
		return false, false, badQuestion(err)
	}
	switch d.Fit() {
	case content.Fits:
		return false, false, nil
	case content.NeedsBytes:
		if e.complete == nil {
			return true, false, nil
		}
	case content.Differs:
		if q.force && !e.record.Forced {
			return true, true, nil
		}
		if !unchanged(e) {
			return true, false, nil // a file more or less
		}
	}
	return false, false, stale("compared with what is expected, " + d.Summary(diffNames))
}

// stale is the answer where this distribution point's own bytes do not fit.
func stale(detail string) error {
	p := problem(http.StatusConflict, api.LszStale, "the distribution point's files are not what is expected",
		detail+"; update its files, or correct what is expected")
	p.RetrySecs = staleRetry
	return p
}

// unavailable is the answer where nobody knows what the files are.
func unavailable() error {
	p := problem(http.StatusServiceUnavailable, "unavailable", "the distribution point could not read its files just now",
		"its log says why; it tries again by itself")
	p.RetrySecs = staleRetry
	return p
}

// reply says what is served for a content.
func (o *Origin) reply(ctx context.Context, e *entry) (*api.LszReply, error) {
	s := e.standing()
	base, digest := strings.TrimSuffix(o.cfg.BaseURL, "/"), e.record.Manifest
	out := &api.LszReply{
		ContentId: string(e.record.ContentID), Version: e.record.Version, Outcome: api.LszFits,
		ManifestDigest: digest.String(), HashOfHashes: e.hoh.Base64(), Size: e.size, PublisherSignature: s.signature,
		ManifestUrl: base + api.ManifestPath(digest), PiecesHashFileUrl: base + api.HashFilePath(e.hoh), ContentUrl: base + api.BytesPath(digest),
	}
	if s.alone || s.known != e.record.Manifest {
		out.Outcome = api.LszDiffers
	} else {
		out.Generation = s.generation
	}
	var err error
	if out.Signature, err = o.sign(e.record.Manifest); err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	manifest, err := o.files.Manifest(ctx, e.record.Manifest)
	if err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	raw, err := o.files.HashFile(ctx, e.hoh)
	if err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	if len(manifest)+len(raw) <= lszInline {
		out.Manifest, out.HashFile = manifest, raw
	}
	return out, nil
}

// sign signs a manifest digest, where there is a key.
func (o *Origin) sign(manifest content.Digest) ([]byte, error) {
	if o.cfg.Sign == nil {
		return nil, nil
	}
	return o.cfg.Sign(manifest)
}
