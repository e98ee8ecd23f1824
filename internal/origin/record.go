package origin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"freshet/internal/blob"
	"freshet/internal/content"
)

// record is what is kept of a hashed directory over restarts.
type record struct {
	ContentID content.ID     `json:"contentId"`
	Version   uint64         `json:"version"`
	Dir       string         `json:"dir"`
	Manifest  content.Digest `json:"manifestDigest"`
	Known     content.Digest `json:"registeredDigest"` // what the server took last; zero: nothing yet
	Groups    []string       `json:"groups"`           // who may read it; empty: all groups
	Stamps    []blob.Stamp   `json:"stamps"`           // in manifest order

	Complete   content.Digest `json:"completeDigest"`      // the manifest with all SHA-1s, where Manifest lacks some; zero: not known, or not needed
	Forced     bool           `json:"forced"`              // all bytes were read because someone expected others; see Origin.need
	Generation int64          `json:"generation"`          // that the server gave Known
	Signature  []byte         `json:"signature,omitempty"` // the publisher's, of Manifest
}

func (r *record) ref() content.Ref { return content.Ref{ID: r.ContentID, Version: r.Version} }

func (o *Origin) recordPath(ref content.Ref) string {
	return filepath.Join(o.records, ref.String()+".json")
}

// loadRecord returns the record of ref, or nil when there is none that can be used: the
// directory is then hashed anew.
func (o *Origin) loadRecord(ref content.Ref) *record {
	b, err := os.ReadFile(o.recordPath(ref))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			o.cfg.Log.Warn("record cannot be read", "content", ref.String(), "err", err)
		}
		return nil
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil || r.ref() != ref {
		o.cfg.Log.Warn("record is damaged", "content", ref.String(), "err", err)
		return nil
	}
	return &r
}

// saveRecord replaces the record of its ref. It is not synced: a lost one costs a read of
// the directory, and a torn one cannot be, since it appears by rename.
func (o *Origin) saveRecord(r *record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("origin: record of %s: %w", r.ref(), err)
	}
	path := o.recordPath(r.ref())
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("origin: record of %s: %w", r.ref(), err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("origin: record of %s: %w", r.ref(), err)
	}
	return nil
}
