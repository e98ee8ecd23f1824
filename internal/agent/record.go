package agent

import (
	"context"
	"encoding/json"
	"fmt"
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

	inline, inlineHashes []byte // manifest and hash file, when Content Policy sent them
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

// keep saves a record.
func (a *Agent) keep(ctx context.Context, r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("agent: record of %s: %w", r.Ref, err)
	}
	return a.store.PutJob(ctx, store.Job{ID: r.key(), JSON: b})
}

// find returns the newest record of ref, for when no service answers.
func (a *Agent) find(ctx context.Context, ref content.Ref) (best record, ok bool) {
	recs, err := a.records(ctx)
	if err != nil {
		return record{}, false
	}
	for _, r := range recs {
		if r.Ref.ID == ref.ID && (ref.Version == 0 || r.Ref.Version == ref.Version) && (!ok || newer(r, best)) {
			best, ok = r, true
		}
	}
	return best, ok
}

func newer(a, b record) bool {
	if a.Ref.Version != b.Ref.Version {
		return a.Ref.Version > b.Ref.Version
	}
	return a.Generation > b.Generation
}
