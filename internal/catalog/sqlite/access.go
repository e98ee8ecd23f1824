package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"freshet/internal/catalog"
	"freshet/internal/content"
)

const tokenColumns = `secret, id, kind, group_name, created, expires, uses_left`

func scanToken(row scanner) (catalog.Token, error) {
	var (
		t                catalog.Token
		secret           string
		created, expires int64
	)
	err := row.Scan(&secret, &t.ID, &t.Kind, &t.Group, &created, &expires, &t.Left)
	if err != nil {
		return t, notFound(err)
	}
	t.Created, t.Expires = instant(created), instant(expires)
	t.Secret, err = content.ParseDigest(secret)
	return t, err
}

// AddToken implements catalog.Tokens.
func (c *Catalog) AddToken(ctx context.Context, t catalog.Token) error {
	return c.update(ctx, fmt.Sprintf("add token %q", t.ID), func(tx *sql.Tx) error {
		return fresh(tx.ExecContext(ctx, `INSERT INTO tokens (`+tokenColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
			t.Secret.String(), t.ID, t.Kind, t.Group, seconds(t.Created), seconds(t.Expires), t.Left))
	})
}

func tokenBySecret(ctx context.Context, q querier, secret content.Digest) (catalog.Token, error) {
	return scanToken(q.QueryRowContext(ctx, `SELECT `+tokenColumns+` FROM tokens WHERE secret = $1`, secret.String()))
}

// Token implements catalog.Tokens.
func (c *Catalog) Token(ctx context.Context, secret content.Digest) (catalog.Token, error) {
	t, err := tokenBySecret(ctx, c.read, secret)
	if err != nil {
		return t, fmt.Errorf("catalog: token: %w", err)
	}
	return t, nil
}

// UseToken implements catalog.Tokens.
func (c *Catalog) UseToken(ctx context.Context, secret content.Digest, now time.Time) (catalog.Token, error) {
	var t catalog.Token
	err := c.update(ctx, "use token", func(tx *sql.Tx) (err error) {
		if t, err = tokenBySecret(ctx, tx, secret); err != nil {
			return err
		}
		if !t.Usable(now) {
			return fmt.Errorf("%q: %w", t.ID, catalog.ErrUsed)
		}
		if t.Left == catalog.Unlimited {
			return nil
		}
		t.Left--
		return affected(tx.ExecContext(ctx, `UPDATE tokens SET uses_left = $2 WHERE secret = $1`, secret.String(), t.Left))
	})
	return t, err
}

// Tokens implements catalog.Tokens.
func (c *Catalog) Tokens(ctx context.Context) ([]catalog.Token, error) {
	all, err := collect(ctx, c.read, scanToken, `SELECT `+tokenColumns+` FROM tokens ORDER BY created, id`)
	if err != nil {
		return nil, fmt.Errorf("catalog: list tokens: %w", err)
	}
	return all, nil
}

// RemoveToken implements catalog.Tokens.
func (c *Catalog) RemoveToken(ctx context.Context, id string) error {
	return c.update(ctx, fmt.Sprintf("remove token %q", id), func(tx *sql.Tx) error {
		return affected(tx.ExecContext(ctx, `DELETE FROM tokens WHERE id = $1`, id))
	})
}

// PutSetting implements catalog.Settings.
func (c *Catalog) PutSetting(ctx context.Context, s catalog.Setting, now time.Time) error {
	return c.update(ctx, fmt.Sprintf("put setting %q", s.Name), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO settings (name, value, changed) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value, changed = excluded.changed`, s.Name, s.Value, seconds(now))
		return err
	})
}

// Settings implements catalog.Settings.
func (c *Catalog) Settings(ctx context.Context) ([]catalog.Setting, error) {
	all, err := collect(ctx, c.read, func(row scanner) (s catalog.Setting, err error) {
		err = row.Scan(&s.Name, &s.Value)
		return s, err
	}, `SELECT name, value FROM settings ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("catalog: list settings: %w", err)
	}
	return all, nil
}

// RemoveSetting implements catalog.Settings.
func (c *Catalog) RemoveSetting(ctx context.Context, name string) error {
	return c.update(ctx, fmt.Sprintf("remove setting %q", name), func(tx *sql.Tx) error {
		return affected(tx.ExecContext(ctx, `DELETE FROM settings WHERE name = $1`, name))
	})
}
