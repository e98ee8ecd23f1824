// Package discovery is the service that tells devices which array to join, such that those
// that share bytes, group and site come to the same one (design section 5).
//
// Where one process is the only array, it is the answer to all. An id is not looked up: an
// array serves swarms of contents that the catalog knows no more. A URL (altCatalogId) is.
package discovery

import (
	"fmt"
	"net/http"
	"time"

	"freshet/internal/api"
	"freshet/internal/authz"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/web"
)

// ttl is how long an answer may be kept.
const ttl = 10 * time.Minute

// Service answers GET /content/{contentId} with one array and GET /v2/content/{contentId}
// with all of them, ranked.
type Service struct {
	Array    string // base URL of the array, with a slash at the end
	Contents catalog.Finder
}

// ServeV1 answers the array to join.
func (s *Service) ServeV1(w http.ResponseWriter, r *http.Request) { s.serve(w, r, "site") }

// ServeV2 answers all arrays: of the site, then for the group elsewhere.
func (s *Service) ServeV2(w http.ResponseWriter, r *http.Request) { s.serve(w, r, "site", "group") }

func (s *Service) serve(w http.ResponseWriter, r *http.Request, scopes ...string) {
	if err := s.check(r); err != nil {
		web.Fail(w, r, err)
		return
	}
	arrays := make([]api.Array, 0, len(scopes))
	for _, scope := range scopes {
		arrays = append(arrays, api.Array{CollectiveArray: s.Array, Scope: scope, TTLSecs: int64(ttl / time.Second)})
	}
	web.WriteJSON(w, arrays)
}

// check checks what a choice among arrays goes by.
func (s *Service) check(r *http.Request) error {
	q := r.URL.Query()
	a := catalog.Asked{ID: r.PathValue("contentId"), URL: q.Get("altCatalogId"), Group: authz.From(r.Context()).Name.Group}
	var err error
	if hoh := q.Get("hashOfHashes"); hoh != "" {
		_, err = content.ParseDigestBase64(hoh)
	}
	if err == nil && a.URL == "" {
		_, err = content.ParseID(a.ID)
	}
	if err != nil {
		return a.Problem(fmt.Errorf("%w: %w", catalog.ErrBadName, err))
	}
	if a.URL != "" {
		if _, err := catalog.Find(r.Context(), s.Contents, a); err != nil {
			return a.Problem(err)
		}
	}
	return nil
}
