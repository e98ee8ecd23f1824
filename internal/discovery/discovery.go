// Package discovery is the service that tells devices which array to join, such that those
// that share bytes, group and site come to the same one (design section 5).
//
// Where one process is the only array, it is the answer to all.
package discovery

import (
	"net/http"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/web"
)

// ttl is how long an answer may be kept.
const ttl = 10 * time.Minute

// Service answers GET /content/{contentId} with one array and GET /v2/content/{contentId}
// with all of them, ranked.
type Service struct {
	Array string // base URL of the array, with a slash at the end
}

// ServeV1 answers the array to join.
func (s *Service) ServeV1(w http.ResponseWriter, r *http.Request) { s.serve(w, r, "site") }

// ServeV2 answers all arrays: of the site, then for the group elsewhere.
func (s *Service) ServeV2(w http.ResponseWriter, r *http.Request) { s.serve(w, r, "site", "group") }

func (s *Service) serve(w http.ResponseWriter, r *http.Request, scopes ...string) {
	if err := check(r); err != nil {
		web.Problem(w, r, api.Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: "the content is not well named", Detail: err.Error()})
		return
	}
	arrays := make([]api.Array, 0, len(scopes))
	for _, scope := range scopes {
		arrays = append(arrays, api.Array{CollectiveArray: s.Array, Scope: scope, TTLSecs: int64(ttl / time.Second)})
	}
	web.WriteJSON(w, arrays)
}

// check checks what a choice among arrays goes by.
func check(r *http.Request) error {
	if _, err := content.ParseID(r.PathValue("contentId")); err != nil {
		return err
	}
	if hoh := r.URL.Query().Get("hashOfHashes"); hoh != "" {
		_, err := content.ParseDigestBase64(hoh)
		return err
	}
	return nil
}
