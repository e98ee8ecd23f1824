package arrays

import (
	"context"
	"errors"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/catalog"
	"freshet/internal/content"
)

// counted is a catalog that counts its look-ups.
type counted struct {
	asked int
	c     catalog.Content
	err   error
}

func (c *counted) Content(context.Context, content.Ref) (catalog.Content, error) {
	c.asked++
	return c.c, c.err
}

func TestGenerations(t *testing.T) {
	source := &counted{c: catalog.Content{Generation: 7, Groups: []string{"lab"}}}
	g := newGenerations(source)
	now := time.Unix(1000, 0)
	ask := func(group, id string) int64 {
		t.Helper()
		n, err := g.of(t.Context(), now, group, &api.JoinRequest{ContentId: id, Version: 1})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := ask("lab", "tool"); got != 7 {
		t.Errorf("generation %d, want 7", got)
	}
	if got := ask("office", "tool"); got != 0 {
		t.Errorf("another group was told generation %d", got)
	}
	if got := ask("lab", "../tool"); got != 0 || source.asked != 1 {
		t.Errorf("generation %d after %d look-ups, want 0 after 1", got, source.asked)
	}
	source.err = catalog.ErrNotFound
	now = now.Add(generationAge)
	if got := ask("lab", "tool"); got != 0 || source.asked != 2 {
		t.Errorf("generation %d after %d look-ups, want 0 after 2", got, source.asked)
	}
	ask("lab", "tool")
	if source.asked != 2 {
		t.Errorf("%d look-ups: that there is none is not remembered", source.asked)
	}
	source.err = errors.New("disk")
	if _, err := g.of(t.Context(), now, "lab", &api.JoinRequest{ContentId: "else", Version: 1}); err == nil {
		t.Error("a broken catalog was taken for none")
	}
	source.err = nil
	for i := range maxGenerations + 10 {
		if _, err := g.of(t.Context(), now, "lab", &api.JoinRequest{ContentId: "tool", Version: api.Number(i + 2)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(g.by) > maxGenerations {
		t.Errorf("%d are remembered, at most %d should be", len(g.by), maxGenerations)
	}
}
