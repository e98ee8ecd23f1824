package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/wire"
)

// AddDifference implements catalog.Differences.
func (c *Catalog) AddDifference(ctx context.Context, d catalog.Difference) error {
	return c.update(ctx, fmt.Sprintf("note what is expected of %q", d.Ref), func(tx *sql.Tx) error {
		now, err := current(ctx, tx, d.Ref)
		if errors.Is(err, catalog.ErrNotFound) || err == nil && (now.recalled || now.ManifestDigest != d.Manifest) {
			return catalog.ErrChanged
		}
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO expected_differs (id, version, device, manifest_digest, metadata_hash, summary, reported)
			VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (id, version, device) DO UPDATE SET manifest_digest = excluded.manifest_digest,
			metadata_hash = excluded.metadata_hash, summary = excluded.summary, reported = excluded.reported`,
			string(d.Ref.ID), int64(d.Ref.Version), d.Device.String(), d.Manifest.String(), d.MetadataHash.String(), d.Summary, seconds(d.At))
		return err
	})
}

// Differences implements catalog.Differences.
func (c *Catalog) Differences(ctx context.Context, ref content.Ref) ([]catalog.Difference, error) {
	scan := func(row scanner) (catalog.Difference, error) { return scanDifference(row, ref) }
	all, err := collect(ctx, c.read, scan, `SELECT device, manifest_digest, metadata_hash, summary, reported FROM expected_differs
		WHERE id = $1 AND version = $2 ORDER BY reported DESC, device`, string(ref.ID), int64(ref.Version))
	if err != nil {
		return nil, fmt.Errorf("catalog: what is expected of %q: %w", ref, err)
	}
	return all, nil
}

func scanDifference(row scanner, ref content.Ref) (catalog.Difference, error) {
	var (
		d                      = catalog.Difference{Ref: ref}
		device, manifest, hash string
		at                     int64
	)
	err := row.Scan(&device, &manifest, &hash, &d.Summary, &at)
	if err != nil {
		return d, err
	}
	d.At = instant(at)
	if d.Device, err = wire.ParseDeviceID(device); err != nil {
		return d, err
	}
	if d.Manifest, err = content.ParseDigest(manifest); err != nil {
		return d, err
	}
	d.MetadataHash, err = content.ParseDigest(hash)
	return d, err
}

// forgetDifferences forgets what was said of other manifests than this.
func forgetDifferences(ctx context.Context, tx *sql.Tx, ref content.Ref, but content.Digest) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM expected_differs WHERE id = $1 AND version = $2 AND manifest_digest <> $3`,
		string(ref.ID), int64(ref.Version), but.String())
	return err
}

// countDifferences returns how many devices expect something else, by content.
func countDifferences(ctx context.Context, q querier) (map[content.Ref]int, error) {
	counts := map[content.Ref]int{}
	_, err := collect(ctx, q, func(row scanner) (struct{}, error) {
		var (
			id      string
			version uint64
			n       int
		)
		err := row.Scan(&id, &version, &n)
		counts[content.Ref{ID: content.ID(id), Version: version}] = n
		return struct{}{}, err
	}, `SELECT id, version, COUNT(*) FROM expected_differs GROUP BY id, version`)
	return counts, err
}

// signatureOf turns a column into a signature; none is nil.
func signatureOf(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}
