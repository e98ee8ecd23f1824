package sqlite

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"

	"freshet/internal/catalog"
)

// LANKeys implements catalog.LANKeys.
func (c *Catalog) LANKeys(ctx context.Context, group string) (keys []catalog.LANKey, revoked int64, err error) {
	if keys, err = lanKeys(ctx, c.read, group); err == nil {
		err = c.read.QueryRowContext(ctx, `SELECT COUNT(*) FROM devices WHERE group_name = $1 AND revoked > 0`, group).Scan(&revoked)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("catalog: lan keys of group %q: %w", group, err)
	}
	return keys, revoked, nil
}

func lanKeys(ctx context.Context, q querier, group string) ([]catalog.LANKey, error) {
	return collect(ctx, q, scanLANKey, `SELECT id, secret, starts, revoked FROM lan_keys WHERE group_name = $1 ORDER BY starts, id`, group)
}

func scanLANKey(row scanner) (catalog.LANKey, error) {
	var (
		k          catalog.LANKey
		id, secret string
		starts     int64
	)
	if err := row.Scan(&id, &secret, &starts, &k.Revoked); err != nil {
		return k, err
	}
	k.Starts = instant(starts)
	if n, err := hex.Decode(k.ID[:], []byte(id)); err != nil || n != len(k.ID) {
		return k, fmt.Errorf("id %q is not %d lower-case hex digits", id, hex.EncodedLen(len(k.ID)))
	}
	var err error
	if k.Secret, err = hex.DecodeString(secret); err != nil {
		return k, fmt.Errorf("key %q: its secret is not hex", id) // the cause would repeat a part of it
	}
	return k, nil
}

// SwapLANKeys implements catalog.LANKeys.
func (c *Catalog) SwapLANKeys(ctx context.Context, group string, old, keys []catalog.LANKey) error {
	return c.update(ctx, fmt.Sprintf("change lan keys of group %q", group), func(tx *sql.Tx) error {
		if _, err := scanGroup(tx.QueryRowContext(ctx, groupQuery+`WHERE g.name = $1`, group)); err != nil {
			return err
		}
		now, err := lanKeys(ctx, tx, group)
		if err != nil {
			return err
		}
		if !slices.EqualFunc(now, old, func(a, b catalog.LANKey) bool { return a.ID == b.ID }) {
			return catalog.ErrChanged
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM lan_keys WHERE group_name = $1`, group); err != nil {
			return err
		}
		for _, k := range keys {
			if _, err := tx.ExecContext(ctx, `INSERT INTO lan_keys (id, group_name, secret, starts, revoked) VALUES ($1, $2, $3, $4, $5)`,
				hex.EncodeToString(k.ID[:]), group, hex.EncodeToString(k.Secret), seconds(k.Starts), k.Revoked); err != nil {
				return err
			}
		}
		return nil
	})
}
