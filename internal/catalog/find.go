package catalog

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"freshet/internal/api"
	"freshet/internal/content"
)

// Finder finds what a group may read; see [Contents] and [URLs].
type Finder interface {
	Readable(ctx context.Context, ref content.Ref, group string) (Content, error)
	ReadableByURL(ctx context.Context, url string, version uint64, group string) (Content, error)
}

// Asked is how a device names the content that it wants. DO's clients may know a download's
// URL alone, and then send any ContentID, or none.
type Asked struct {
	ID      string // as it came; may be empty, or a dummy, where there is a URL
	Version uint64 // 0: the newest
	URL     string // as it came; empty: none
	Group   string // of the asker
}

// Find returns the content of the id that the group may read; where there is none, that of
// the URL. ErrNotFound, ErrBadName.
func Find(ctx context.Context, in Finder, a Asked) (Content, error) {
	id, err := content.ParseID(a.ID)
	if err == nil {
		c, err := in.Readable(ctx, content.Ref{ID: id, Version: a.Version}, a.Group)
		if a.URL == "" || !errors.Is(err, ErrNotFound) {
			return c, err
		}
	} else if a.URL == "" {
		return Content{}, fmt.Errorf("%w: %w", ErrBadName, err)
	}
	url, err := api.NormalURL(a.URL)
	if err != nil {
		return Content{}, fmt.Errorf("%w: %w", ErrBadName, err)
	}
	return in.ReadableByURL(ctx, url, a.Version, a.Group)
}

// Problem says what an error of [Find] means for who asked. A content that is there and not
// for the asker's group looks as one that is not.
func (a Asked) Problem(err error) error {
	switch {
	case errors.Is(err, ErrBadName):
		return &api.Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: "the content is not well named", Detail: err.Error()}
	case !errors.Is(err, ErrNotFound):
		return err
	case a.URL != "":
		return &api.Problem{
			Status: http.StatusNotFound, Type: "unknown-content",
			Title:  fmt.Sprintf("no content is published under the URL %q for this device's group", api.ShownURL(a.URL)),
			Detail: "register it with \"freshet publish --url URL\"; \"freshet content list\" shows which URLs are known",
		}
	}
	return &api.Problem{
		Status: http.StatusNotFound, Type: "unknown-content",
		Title:  fmt.Sprintf("content %q is not published for this device's group", content.Ref{ID: content.ID(a.ID), Version: a.Version}),
		Detail: "check id and version against \"freshet content list\", or publish it with \"freshet publish\"",
	}
}
