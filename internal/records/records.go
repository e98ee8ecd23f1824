// Package records keeps what Content Policy said of a device's contents, and who asked for
// them, over restarts: without it a device could neither serve what it holds nor go on with
// what it began while no service answers. One record is one job of the store's index:
//
//	id     content/<manifest digest>
//	value  the JSON form of [Record]; a field that is missing is zero, one that is not known is passed over
package records

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/store"
)

// Record is what Content Policy, or a distribution point in its stead, said of a content, and
// what became of that here.
type Record struct {
	Ref          content.Ref
	Generation   int64
	Manifest     content.Digest
	HashOfHashes content.Digest
	Size         int64
	Peerable     bool
	Grant        []byte // none: what a publisher's signature allows alone
	Signature    []byte `json:",omitempty"` // the publisher's, of the manifest; not verified here
	ManifestURLs []string
	HashFileURLs []string
	ContentURLs  []string
	Granted      time.Time // when Grant came
	Wanted       bool      // a download of it has begun and not ended
	Askers       Askers

	Inline, InlineHashes []byte `json:"-"` // manifest and hash file, when Content Policy sent them along
}

// Renewed returns the record with what was said of the same manifest since. The word of Content
// Policy, which brings a grant, stands against that of a device or a distribution point, and a
// higher generation against a lower one. What became of the content here stays.
func (r Record) Renewed(by Record) Record {
	n, other := by, r
	if r.outranks(&by) {
		n, other = r, by
	}
	if len(n.Signature) == 0 {
		n.Signature = other.Signature // it is of the same manifest
	}
	if other.Granted.After(n.Granted) {
		n.Grant, n.Granted = other.Grant, other.Granted
	}
	n.Wanted, n.Askers = r.Wanted, r.Askers.Add(by.Askers)
	return n
}

// outranks reports whether what was said later does not count.
func (r *Record) outranks(by *Record) bool {
	if granted := len(r.Grant) > 0; granted != (len(by.Grant) > 0) {
		return granted
	}
	return r.Generation > by.Generation
}

// Askers is who asked for a content through this device, and how.
type Askers struct {
	Users []int    `json:",omitempty"` // ids of local users, who may see its status; the latest last
	URLs  []string `json:",omitempty"` // normal ones that it was asked for by; the latest last
}

// Bounds of Askers; the oldest go first.
const (
	maxUsers = 64
	maxURLs  = 16
)

// Add returns a with what b has besides.
func (a Askers) Add(b Askers) Askers {
	return Askers{merged(a.Users, b.Users, maxUsers), merged(a.URLs, b.URLs, maxURLs)}
}

// merged returns old and then what of add it does not have, the last most of them.
func merged[T comparable](old, add []T, most int) []T {
	all := slices.Clone(old)
	for _, v := range add {
		if !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all[max(0, len(all)-most):]
}

const prefix = "content/" // of the ids of records among the store's jobs

func idOf(manifest content.Digest) string { return prefix + manifest.String() }

// Of reads Content Policy's reply, whose digests the client has checked.
func Of(p *api.ContentPolicy) (Record, error) {
	r := Record{
		Ref:        content.Ref{ID: content.ID(p.ContentId), Version: p.Version},
		Generation: p.Generation, Size: p.Size, Peerable: p.Peerable, Grant: p.Grant, Signature: p.Signature,
		ManifestURLs: p.ManifestUrls, HashFileURLs: p.PiecesHashFileCdnUrls, ContentURLs: p.ContentCdnUrls,
		Granted: time.Now(),
		Inline:  p.Manifest, InlineHashes: p.HashFile,
	}
	var err error
	if r.Manifest, err = content.ParseDigest(p.ManifestDigest); err != nil {
		return Record{}, err
	}
	if r.HashOfHashes, err = content.ParseDigestBase64(p.HashOfHashes); err != nil {
		return Record{}, err
	}
	return r, nil
}

// OfLsz reads a distribution point's reply, whose digests the client has checked: what can be
// had there, and of peers where the manifest is the fleet's too. It brings no grant.
func OfLsz(p *api.LszReply) (Record, error) {
	fleets := p.Outcome == api.LszFits || len(p.PublisherSignature) > 0
	r, err := Of(&api.ContentPolicy{
		ContentId: p.ContentId, Version: p.Version, Generation: p.Generation, Size: p.Size, Peerable: fleets && p.Size > 0,
		ManifestDigest: p.ManifestDigest, HashOfHashes: p.HashOfHashes, Signature: p.PublisherSignature,
		ManifestUrls: []string{p.ManifestUrl}, PiecesHashFileCdnUrls: []string{p.PiecesHashFileUrl}, ContentCdnUrls: []string{p.ContentUrl},
		Manifest: p.Manifest, HashFile: p.HashFile,
	})
	r.Granted = time.Time{} // so that a grant is asked for as soon as services answer
	return r, err
}

// Book is where records are kept. Its methods may be called from any goroutine.
type Book struct {
	store *store.Store
	log   *slog.Logger
	mu    sync.Mutex // held while a record is changed or removed; a share's is taken meanwhile
}

// NewBook returns the book in a store, which stays its caller's.
func NewBook(s *store.Store, log *slog.Logger) *Book { return &Book{store: s, log: log} }

// All returns what was kept, but for records that are damaged.
func (b *Book) All(ctx context.Context) ([]Record, error) {
	jobs, err := b.store.Jobs(ctx)
	if err != nil {
		return nil, err
	}
	var recs []Record
	for _, j := range jobs {
		if !strings.HasPrefix(j.ID, prefix) {
			continue
		}
		r, err := parse(j)
		if err != nil {
			b.log.Warn("a record is passed over", "err", err)
			continue
		}
		recs = append(recs, r)
	}
	return recs, nil
}

// parse reads a record. One that is damaged counts as one that is not there.
func parse(j store.Job) (r Record, err error) {
	if err := json.Unmarshal(j.JSON, &r); err != nil {
		return Record{}, fmt.Errorf("records: record %q is damaged: %w (%w)", j.ID, fs.ErrNotExist, err)
	}
	return r, nil
}

// Change lets f change the record of a manifest, which is zero where none is kept, and saves it when
// f says so. Every writer reads and writes within one Change, so that none takes back what another
// one wrote.
func (b *Book) Change(ctx context.Context, manifest content.Digest, f func(*Record) bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, err := b.Get(ctx, manifest)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !f(&r) {
		return nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("records: record of %s: %w", r.Ref, err)
	}
	return b.store.PutJob(ctx, store.Job{ID: idOf(manifest), JSON: text})
}

// Keep saves a record. What was kept of the manifest before is renewed; whether the content is
// wanted is as r says.
func (b *Book) Keep(ctx context.Context, r Record) error {
	return b.Change(ctx, r.Manifest, func(old *Record) bool {
		*old = old.Renewed(r)
		old.Wanted = r.Wanted
		return true
	})
}

// Forget removes the record of a manifest.
func (b *Book) Forget(ctx context.Context, manifest content.Digest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.store.DeleteJob(ctx, idOf(manifest))
}

// Get returns the record of a manifest; fs.ErrNotExist when there is none, or a damaged one.
func (b *Book) Get(ctx context.Context, manifest content.Digest) (Record, error) {
	j, err := b.store.Job(ctx, idOf(manifest))
	if err != nil {
		return Record{}, err
	}
	return parse(j)
}

// Find returns the newest record of what is asked for, for when no service answers: the content
// that was asked for by url, or ref's when url is empty.
func (b *Book) Find(ctx context.Context, ref content.Ref, url string) (best Record, ok bool) {
	recs, err := b.All(ctx)
	if err != nil {
		b.log.Warn("what was kept of contents is not read", "err", err)
		return Record{}, false
	}
	for _, r := range recs {
		if r.answers(ref, url) && (!ok || newer(r, best)) {
			best, ok = r, true
		}
	}
	return best, ok
}

// answers reports whether the record is of what is asked for.
func (r *Record) answers(ref content.Ref, url string) bool {
	if url != "" {
		return slices.Contains(r.Askers.URLs, url)
	}
	return r.Ref.ID == ref.ID && (ref.Version == 0 || r.Ref.Version == ref.Version)
}

func newer(a, b Record) bool {
	if a.Ref.Version != b.Ref.Version {
		return a.Ref.Version > b.Ref.Version
	}
	return a.Generation > b.Generation
}
