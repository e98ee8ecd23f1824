package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/store"
)

// record is what the agent keeps of a content over restarts: what Content Policy said of it.
type record struct {
	Ref          content.Ref
	Generation   int64
	Manifest     content.Digest
	HashOfHashes content.Digest
	Size         int64
	Peerable     bool
	Grant        []byte
	ManifestURLs []string
	HashFileURLs []string
	ContentURLs  []string
	Granted      time.Time
	Wanted       bool // a download of it has begun and not ended
	Askers       asked

	inline, inlineHashes []byte // manifest and hash file, when Content Policy sent them
}

// asked is who asked for a content through this agent, and how.
type asked struct {
	Users []int    `json:",omitempty"` // ids of local users, who may see its status; the latest last
	URLs  []string `json:",omitempty"` // normal ones that it was asked for by; the latest last
}

// Bounds of asked; the oldest go first.
const (
	maxUsers = 64
	maxURLs  = 16
)

// add returns a with what b has besides.
func (a asked) add(b asked) asked {
	return asked{merged(a.Users, b.Users, maxUsers), merged(a.URLs, b.URLs, maxURLs)}
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

const recordPrefix = "content/"

func (r *record) key() string { return recordPrefix + r.Manifest.String() }

// recordOf reads Content Policy's reply, whose digests the client has checked.
func recordOf(p *api.ContentPolicy) (record, error) {
	r := record{
		Ref:        content.Ref{ID: content.ID(p.ContentId), Version: p.Version},
		Generation: p.Generation, Size: p.Size, Peerable: p.Peerable, Grant: p.Grant,
		ManifestURLs: p.ManifestUrls, HashFileURLs: p.PiecesHashFileCdnUrls, ContentURLs: p.ContentCdnUrls,
		Granted: time.Now(),
		inline:  p.Manifest, inlineHashes: p.HashFile,
	}
	var err error
	if r.Manifest, err = content.ParseDigest(p.ManifestDigest); err != nil {
		return record{}, err
	}
	if r.HashOfHashes, err = content.ParseDigestBase64(p.HashOfHashes); err != nil {
		return record{}, err
	}
	return r, nil
}

// records returns what was kept.
func (a *Agent) records(ctx context.Context) ([]record, error) {
	jobs, err := a.store.Jobs(ctx)
	if err != nil {
		return nil, err
	}
	var recs []record
	for _, j := range jobs {
		if !strings.HasPrefix(j.ID, recordPrefix) {
			continue
		}
		var r record
		if err := json.Unmarshal(j.JSON, &r); err != nil {
			return nil, fmt.Errorf("agent: record %q: %w", j.ID, err)
		}
		recs = append(recs, r)
	}
	return recs, nil
}

// keep saves a record. Who asked before stays known, whoever writes.
func (a *Agent) keep(ctx context.Context, r record) error {
	a.keeping.Lock()
	defer a.keeping.Unlock()
	before, err := a.store.Job(ctx, r.key())
	var old record
	switch {
	case err == nil:
		if err := json.Unmarshal(before.JSON, &old); err != nil {
			return fmt.Errorf("agent: record %q: %w", r.key(), err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	r.Askers = old.Askers.add(r.Askers)
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("agent: record of %s: %w", r.Ref, err)
	}
	return a.store.PutJob(ctx, store.Job{ID: r.key(), JSON: b})
}

// find returns the newest record of what is asked for, for when no service answers.
func (a *Agent) find(ctx context.Context, req Request) (best record, ok bool) {
	recs, err := a.records(ctx)
	if err != nil {
		return record{}, false
	}
	for _, r := range recs {
		if r.answers(req) && (!ok || newer(r, best)) {
			best, ok = r, true
		}
	}
	return best, ok
}

// answers reports whether the record is of what is asked for.
func (r *record) answers(req Request) bool {
	if req.URL != "" {
		return slices.Contains(r.Askers.URLs, req.URL)
	}
	return r.Ref.ID == req.Ref.ID && (req.Ref.Version == 0 || r.Ref.Version == req.Ref.Version)
}

func newer(a, b record) bool {
	if a.Ref.Version != b.Ref.Version {
		return a.Ref.Version > b.Ref.Version
	}
	return a.Generation > b.Generation
}
