package services

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/identity"
)

const toolURL = "https://dl.example/tool.zip"

// byURL asks a call of Discovery or Content Policy with a URL.
func (f *fleet) byURL(m *machine, path, at string) answer {
	f.Helper()
	return f.raw(m, "GET", path+"?altCatalogId="+url.QueryEscape(at), nil, nil)
}

func TestContentByURL(t *testing.T) {
	f := startFleet(t)
	device, outsider := f.device(), f.deviceOf("office")
	q := sample(t, "tool", 1, "one")
	q.Groups = []string{DefaultGroup}
	c := f.publish(q)
	publisher := f.with(identity.TokenPublish)
	made, err := publisher.SetURLs(t.Context(), content.Ref{ID: "tool", Version: 1}, []string{"HTTPS://DL.example:443/tool.zip#top"})
	f.want(err)
	if len(made.URLs) != 1 || made.URLs[0] != toolURL {
		t.Errorf("URLs %q, want %q", made.URLs, toolURL)
	}
	p, err := device.ContentPolicyByURL(t.Context(), toolURL)
	f.want(err)
	byID, err := device.ContentPolicy(t.Context(), content.Ref{ID: "tool"})
	f.want(err)
	if p.ContentId != "tool" || p.Version != 1 || p.ManifestDigest != c.ManifestDigest || len(p.Grant) != len(byID.Grant) || !bytes.Equal(p.Manifest, byID.Manifest) {
		t.Errorf("by URL %+v\nby id  %+v", p, byID)
	}
	for _, path := range []string{"/content/test/contentpolicy", "/content/-/contentpolicy", "/content/test", "/v2/content/-"} {
		if a := f.byURL(device, path, toolURL); a.status != http.StatusOK {
			t.Errorf("%s: status %d %s", path, a.status, a.body)
		}
		f.wantAnswer(f.byURL(device, path, "ftp://dl.example/"), http.StatusBadRequest, "bad-request")
		unknown := f.byURL(device, path, "https://dl.example/fool.zip?sig=secret")
		f.wantAnswer(unknown, http.StatusNotFound, "unknown-content")
		if s := string(unknown.body); !strings.Contains(s, "https://dl.example/fool.zip") || !strings.Contains(s, "publish --url") || strings.Contains(s, "secret") {
			t.Errorf("%s: the problem does not name URL and remedy, or tells its query: %s", path, s)
		}
		there, not := f.byURL(outsider, path, toolURL), f.byURL(outsider, path, "https://dl.example/fool.zip")
		f.wantAnswer(there, http.StatusNotFound, "unknown-content")
		if !bytes.Equal(bytes.ReplaceAll(there.body, []byte("tool.zip"), []byte("fool.zip")), not.body) {
			t.Errorf("%s: another group's content differs from none:\n%s\n%s", path, there.body, not.body)
		}
	}
	f.wantAnswer(f.raw(device, "GET", "/content/-", nil, nil), http.StatusBadRequest, "bad-request")
}

func TestURLsAreRefused(t *testing.T) {
	f := startFleet(t)
	f.publish(sample(t, "tool", 1, "one"))
	f.publish(sample(t, "other", 1, "two"))
	publisher := f.with(identity.TokenPublish)
	set := func(id string, urls ...string) error {
		_, err := publisher.SetURLs(t.Context(), content.Ref{ID: content.ID(id), Version: 1}, urls)
		return err
	}
	f.want(set("tool", toolURL))
	f.wantProblem(set("other", toolURL), "url-taken")
	f.wantProblem(set("other", "https://dl.example/x", "tool.zip"), "bad-request")
	f.wantProblem(set("other", make([]string, 65)...), "bad-request")
	f.wantProblem(set("absent", "https://dl.example/x"), "unknown-content")
	_, err := publisher.SetURLs(t.Context(), content.Ref{ID: "tool"}, nil)
	f.wantProblem(err, "bad-request")
	ticket := func(id string) error {
		_, err := publisher.Ticket(t.Context(), api.TicketRequest{ContentId: id, Version: 2, Urls: []string{toolURL}})
		return err
	}
	f.want(ticket("tool"))
	err = ticket("other")
	f.wantProblem(err, "url-taken")
	if err != nil && !strings.Contains(err.Error(), `"tool"`) {
		t.Errorf("the problem does not name the holder: %v", err)
	}
	f.want(set("tool"))
	f.want(set("other", toolURL))
}

// TestArrayByURL: a join by URL comes into the swarm of the content's bytes.
func TestArrayByURL(t *testing.T) {
	f := startFleet(t)
	a, b, outsider := f.device(), f.device(), f.deviceOf("office")
	q := sample(t, "tool", 1, "one")
	q.Groups = []string{DefaultGroup}
	c := f.publish(q)
	_, err := f.with(identity.TokenPublish).SetURLs(t.Context(), content.Ref{ID: "tool", Version: 1}, []string{toolURL})
	f.want(err)
	at := "https://" + f.s.Address() + "/"
	_, err = a.Join(t.Context(), at, joining(a, "one"))
	f.want(err)
	byURL := func(m *machine) api.JoinRequest {
		return api.JoinRequest{AltCatalogId: toolURL, PeerId: m.peerID(), Port: 7680, Scope: 1, Left: 1}
	}
	r, err := b.Join(t.Context(), at, byURL(b))
	if err != nil || len(r.Peers) != 1 || r.Peers[0].PeerId != a.peerID() || r.Generation != c.Generation {
		t.Errorf("join by URL: %+v, %v", r, err)
	}
	_, err = outsider.Join(t.Context(), at, byURL(outsider))
	f.wantProblem(err, "unknown-content")
}
