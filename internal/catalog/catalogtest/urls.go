package catalogtest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"freshet/internal/catalog"
	"freshet/internal/content"
)

const latest, zip1 = "https://dl.example/latest.zip", "https://dl.example/tool-1.zip"

func setURLs(t *testing.T, e Engine, ref content.Ref, urls ...string) catalog.Content {
	t.Helper()
	c, err := e.SetURLs(t.Context(), ref, urls)
	wantNil(t, err)
	return c
}

// wantByURL wants this version for group a, none when it is 0.
func wantByURL(t *testing.T, e Engine, url string, version uint64) {
	t.Helper()
	got, err := e.ReadableByURL(t.Context(), url, 0, "a")
	if version == 0 {
		wantErr(t, err, catalog.ErrNotFound)
		return
	}
	wantNil(t, err)
	same(t, "version of "+url, got.Ref.Version, version)
}

func testURLs(t *testing.T, e Engine) {
	one, two := content.Ref{ID: "tool", Version: 1}, content.Ref{ID: "tool", Version: 2}
	_, err := e.SetURLs(t.Context(), one, []string{latest})
	wantErr(t, err, catalog.ErrNotFound)
	wantByURL(t, e, latest, 0)
	publish(t, e, sample("tool", 1, "one"), now)
	got := setURLs(t, e, one, zip1, latest, zip1)
	same(t, "URLs", got.URLs, []string{latest, zip1})
	kept, err := e.Content(t.Context(), one)
	wantNil(t, err)
	same(t, "what is kept", kept, got)

	publish(t, e, sample("tool", 2, "two"), now)
	wantByURL(t, e, latest, 1)
	setURLs(t, e, two, latest)
	wantByURL(t, e, latest, 2)
	wantByURL(t, e, zip1, 1)
	got, err = e.ReadableByURL(t.Context(), latest, 1, "a")
	wantNil(t, err)
	same(t, "a version asked for", got, kept)
	_, err = e.ReadableByURL(t.Context(), zip1, 2, "a")
	wantErr(t, err, catalog.ErrNotFound)

	again := publish(t, e, sample("tool", 1, "one"), now)
	same(t, "URLs of the same digest", again.URLs, kept.URLs)
	again = publish(t, e, sample("tool", 1, "uno"), now)
	same(t, "URLs of a re-issue", again.URLs, kept.URLs)
	wantNil(t, e.Recall(t.Context(), two, now))
	wantByURL(t, e, latest, 1)
	_, err = e.SetURLs(t.Context(), two, nil)
	wantErr(t, err, catalog.ErrNotFound)
	publish(t, e, sample("tool", 2, "two"), now)
	wantByURL(t, e, latest, 1)
	same(t, "URLs taken away", len(setURLs(t, e, one).URLs), 0)
	wantByURL(t, e, latest, 0)
}

func testURLsAreUnique(t *testing.T, e Engine) {
	tool, other := publish(t, e, sample("tool", 1, "one"), now).Ref, publish(t, e, sample("other", 1, "one"), now).Ref
	setURLs(t, e, tool, latest)
	setURLs(t, e, other, zip1)
	_, err := e.SetURLs(t.Context(), other, []string{"https://dl.example/new.zip", latest})
	wantErr(t, err, catalog.ErrExists)
	if !strings.Contains(err.Error(), latest) || !strings.Contains(err.Error(), `"tool"`) {
		t.Errorf("error %q, want one that names URL and holder", err)
	}
	wantByURL(t, e, zip1, 1) // nothing of it is done
	wantByURL(t, e, "https://dl.example/new.zip", 0)
	holder, err := e.URLHolder(t.Context(), latest)
	wantNil(t, err)
	same(t, "holder", holder, tool.ID)
	wantNil(t, e.Recall(t.Context(), tool, now))
	_, err = e.URLHolder(t.Context(), latest)
	wantErr(t, err, catalog.ErrNotFound)

	publish(t, e, sample("tool", 1, "one"), now)
	won := 0
	for i, err := range concurrently(8, func(i int) error {
		ref := []content.Ref{tool, other}[i%2]
		_, err := e.SetURLs(context.Background(), ref, []string{latest})
		return err
	}) {
		if err == nil {
			won++
			continue
		}
		if wantErr(t, err, catalog.ErrExists); i%2 == 0 == (mustHold(t, e, latest) == tool.ID) {
			t.Errorf("writer %d was refused what its own content has", i)
		}
	}
	same(t, "winners", won, 4)
}

func mustHold(t *testing.T, e Engine, url string) content.ID {
	t.Helper()
	id, err := e.URLHolder(t.Context(), url)
	wantNil(t, err)
	return id
}

// testURLsOfGroups: the newest version that the group may read answers.
func testURLsOfGroups(t *testing.T, e Engine) {
	for v, groups := range [][]string{1: nil, 2: {"a"}, 3: {"b"}, 4: {"b", "c"}} {
		if v > 0 {
			p := sample("tool", uint64(v), fmt.Sprint("v", v))
			p.Content.Groups = groups
			setURLs(t, e, publish(t, e, p, now).Ref, latest)
		}
	}
	for _, c := range []struct {
		group         string
		version, want uint64
	}{{"a", 0, 2}, {"b", 0, 4}, {"c", 0, 4}, {"d", 0, 1}, {"", 0, 1}, {"a", 3, 0}, {"b", 3, 3}} {
		got, err := e.ReadableByURL(t.Context(), latest, c.version, c.group)
		if c.want == 0 {
			wantErr(t, err, catalog.ErrNotFound)
			continue
		}
		wantNil(t, err)
		same(t, fmt.Sprintf("version %d for %q", c.version, c.group), got.Ref.Version, c.want)
	}
}

// testFind: an id that leads somewhere wins; a dummy, a bad or no id gives way to the URL.
func testFind(t *testing.T, e Engine) {
	publish(t, e, sample("else", 1, "two"), now)
	p := sample("tool", 1, "one")
	p.Content.Groups = []string{"a"}
	setURLs(t, e, publish(t, e, p, now).Ref, latest)
	for _, c := range []struct {
		id, url, group string
		version        uint64
		want           string
		err            error
	}{
		{"tool", "", "a", 0, "tool", nil},
		{"tool", "", "b", 0, "", catalog.ErrNotFound},
		{"else", latest, "a", 0, "else", nil},
		{"test", latest, "a", 0, "tool", nil},
		{"", "HTTPS://DL.example:443/latest.zip#x", "a", 0, "tool", nil},
		{"../x", latest, "a", 1, "tool", nil},
		{"test", latest, "a", 2, "", catalog.ErrNotFound},
		{"test", latest, "b", 0, "", catalog.ErrNotFound},
		{"tool", latest, "b", 0, "", catalog.ErrNotFound},
		{"test", zip1, "a", 0, "", catalog.ErrNotFound},
		{"../x", "", "a", 0, "", catalog.ErrBadName},
		{"test", "ftp://dl.example/x", "a", 0, "", catalog.ErrBadName},
	} {
		got, err := catalog.Find(t.Context(), e, catalog.Asked{ID: c.id, Version: c.version, URL: c.url, Group: c.group})
		if c.err != nil {
			wantErr(t, err, c.err)
			continue
		}
		wantNil(t, err)
		same(t, c.id+" "+c.url, string(got.Ref.ID), c.want)
	}
}
