package contentpolicy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"freshet/internal/api"
	"freshet/internal/authz"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/web"
)

const (
	maxDiffers = 16 << 10 // bytes of a request
	maxSummary = 1 << 10  // bytes
)

// Differs answers POST /content/{contentId}/differs: it keeps what devices expect that the
// current manifest is not, for an administrator to see. A word on a manifest that is not
// current any more is of no use, and no error.
type Differs struct {
	Contents    catalog.Finder
	Differences catalog.Differences
	Now         func() time.Time
	Log         *slog.Logger
}

// ServeHTTP implements http.Handler.
func (s *Differs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := authz.From(r.Context()).Name
	var q api.Differs
	if err := web.ReadJSON(w, r, maxDiffers, &q); err != nil {
		web.Fail(w, r, err)
		return
	}
	d, err := parseDiffers(r.PathValue("contentId"), &q)
	if err == nil {
		d.Device, d.At = name.Device, s.Now()
		err = s.keep(r.Context(), d, name.Group)
	}
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Differs) keep(ctx context.Context, d catalog.Difference, group string) error {
	asked := catalog.Asked{ID: string(d.Ref.ID), Version: d.Ref.Version, Group: group}
	if _, err := catalog.Find(ctx, s.Contents, asked); err != nil {
		return asked.Problem(err)
	}
	err := s.Differences.AddDifference(ctx, d)
	if errors.Is(err, catalog.ErrChanged) {
		return nil
	}
	if err == nil {
		s.Log.Warn("a device expects other files", "content", d.Ref.String(), "manifest", d.Manifest.Short(), "device", d.Device, "summary", d.Summary)
	}
	return err
}

func parseDiffers(id string, q *api.Differs) (catalog.Difference, error) {
	var d catalog.Difference
	var err error
	if d.Ref.ID, err = content.ParseID(id); err == nil && q.Version < 1 {
		err = errors.New("version is not a number from 1")
	}
	d.Ref.Version, d.Summary = uint64(q.Version), q.Summary
	if err == nil {
		d.Manifest, err = content.ParseDigest(q.ManifestDigest)
	}
	if err == nil && q.MetadataHash != "" {
		d.MetadataHash, err = content.ParseDigest(q.MetadataHash)
	}
	if err == nil && (len(q.Summary) > maxSummary || !utf8.ValidString(q.Summary) || strings.ContainsFunc(q.Summary, isControl)) {
		err = fmt.Errorf("summary must be at most %d bytes of one line", maxSummary)
	}
	if err != nil {
		return d, &api.Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: "the difference is not well formed", Detail: err.Error()}
	}
	return d, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
