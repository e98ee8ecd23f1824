package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"freshet/internal/api"
	"freshet/internal/catalog"
	"freshet/internal/content"
)

// SetURLs implements catalog.URLs.
func (c *Catalog) SetURLs(ctx context.Context, ref content.Ref, urls []string) (catalog.Content, error) {
	var out catalog.Content
	err := c.update(ctx, fmt.Sprintf("set the URLs of %q", ref), func(tx *sql.Tx) error {
		now, err := current(ctx, tx, ref)
		if err != nil {
			return err
		}
		if now.recalled {
			return catalog.ErrNotFound
		}
		if err := clearURLs(ctx, tx, ref); err != nil {
			return err
		}
		out = now.Content
		out.URLs = slices.Compact(slices.Sorted(slices.Values(urls)))
		for _, u := range out.URLs {
			if err := addURL(ctx, tx, ref, u); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// addURL notes that a version has the URL. Writers queue, so that no other content gets it
// between the look and the entry.
func addURL(ctx context.Context, tx *sql.Tx, ref content.Ref, url string) error {
	holder, err := holderOf(ctx, tx, url)
	switch {
	case err == nil && holder != ref.ID:
		return fmt.Errorf("URL %q: %w at content %q", api.ShownURL(url), catalog.ErrExists, holder)
	case err != nil && !errors.Is(err, catalog.ErrNotFound):
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO content_urls (url, id, version) VALUES ($1, $2, $3)`, url, string(ref.ID), int64(ref.Version))
	return err
}

func clearURLs(ctx context.Context, tx *sql.Tx, ref content.Ref) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM content_urls WHERE id = $1 AND version = $2`, string(ref.ID), int64(ref.Version))
	return err
}

func holderOf(ctx context.Context, q querier, url string) (content.ID, error) {
	id, err := scanString(q.QueryRowContext(ctx, `SELECT id FROM content_urls WHERE url = $1 LIMIT 1`, url))
	return content.ID(id), notFound(err)
}

// URLHolder implements catalog.URLs.
func (c *Catalog) URLHolder(ctx context.Context, url string) (content.ID, error) {
	id, err := holderOf(ctx, c.read, url)
	if err != nil {
		return "", fmt.Errorf("catalog: URL %q: %w", api.ShownURL(url), err)
	}
	return id, nil
}

// ReadableByURL implements catalog.URLs.
func (c *Catalog) ReadableByURL(ctx context.Context, url string, version uint64, group string) (catalog.Content, error) {
	found, err := c.one(ctx, `SELECT `+contentColumns+` FROM contents
		WHERE (id, version) IN (SELECT u.id, u.version FROM content_urls u WHERE u.url = $1) AND (version = $2 OR $2 = 0) AND recalled = 0`+
		isReadable+` ORDER BY version DESC LIMIT 1`, url, int64(version), group)
	if err != nil {
		return catalog.Content{}, fmt.Errorf("catalog: URL %q: %w", api.ShownURL(url), err)
	}
	return found, nil
}
