package sqlite

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/wire"
)

const contentColumns = `id, version, generation, manifest_digest, hash_of_hashes, size, files, metadata_size, published, recalled, signature, owner`

// record is a row of contents.
type record struct {
	catalog.Content
	recalled bool
}

func scanContent(row scanner) (record, error) {
	var (
		r                   record
		id, manifest, hoh   string
		signature, owner    string
		published, recalled int64
	)
	err := row.Scan(&id, &r.Ref.Version, &r.Generation, &manifest, &hoh, &r.Size, &r.Files, &r.MetadataSize, &published, &recalled, &signature, &owner)
	if err != nil {
		return r, notFound(err)
	}
	r.Ref.ID = content.ID(id)
	r.Published, r.recalled = instant(published), recalled != 0
	r.Signature = signatureOf(signature)
	if r.Owner, err = wire.ParseDeviceID(owner); err != nil {
		return r, err
	}
	if r.ManifestDigest, err = content.ParseDigest(manifest); err != nil {
		return r, err
	}
	r.HashOfHashes, err = content.ParseDigest(hoh)
	return r, err
}

// Publish implements catalog.Contents.
func (c *Catalog) Publish(ctx context.Context, p catalog.Publication, now time.Time) (catalog.Content, error) {
	var out catalog.Content
	err := c.update(ctx, fmt.Sprintf("publish %q", p.Content.Ref), func(tx *sql.Tx) error {
		old, err := current(ctx, tx, p.Content.Ref)
		if err != nil && !errors.Is(err, catalog.ErrNotFound) {
			return err
		}
		next, err := succeed(old, p, now)
		if err != nil {
			return err
		}
		if p.Ticket.Nonce != [16]byte{} {
			if err := useTicket(ctx, tx, p.Ticket, next.ManifestDigest.String(), now); err != nil {
				return err
			}
		}
		out = next
		return writeContent(ctx, tx, next)
	})
	return out, err
}

// useTicket notes what the ticket was used for, and forgets those that have expired.
func useTicket(ctx context.Context, tx *sql.Tx, t catalog.Ticket, digest string, now time.Time) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM used_tickets WHERE expires < $1`, seconds(now)); err != nil {
		return err
	}
	nonce := hex.EncodeToString(t.Nonce[:])
	_, err := tx.ExecContext(ctx, `INSERT INTO used_tickets (nonce, manifest_digest, expires) VALUES ($1, $2, $3) ON CONFLICT (nonce) DO NOTHING`,
		nonce, digest, seconds(t.Expires))
	if err != nil {
		return err
	}
	var used string
	if err := tx.QueryRowContext(ctx, `SELECT manifest_digest FROM used_tickets WHERE nonce = $1`, nonce).Scan(&used); err != nil {
		return err
	}
	if used != digest {
		return fmt.Errorf("ticket: %w", catalog.ErrUsed)
	}
	return nil
}

// succeed returns what p makes of old, which has generation 0 where there was nothing.
func succeed(old record, p catalog.Publication, now time.Time) (catalog.Content, error) {
	known := old.Generation > 0 && !old.recalled
	if old.recalled && !p.OwnedBy.IsZero() {
		return catalog.Content{}, catalog.ErrRecalled
	}
	if !p.Replaces.IsZero() && (!known || old.ManifestDigest != p.Replaces) {
		return catalog.Content{}, fmt.Errorf("%w: the current manifest is %s, not %s", catalog.ErrChanged, nameOf(old, known), p.Replaces.Short())
	}
	next := p.Content
	next.URLs, next.Owner = old.URLs, p.OwnedBy
	again := known && old.ManifestDigest == next.ManifestDigest
	if known && !p.OwnedBy.IsZero() {
		if !mayRenew(old, p.OwnedBy, again) {
			return catalog.Content{}, catalog.ErrNotOwner
		}
		next.Groups, next.Owner = old.Groups, old.Owner
	}
	if again {
		next.Generation, next.Published = old.Generation, old.Published
		next.Origins = mergeOrigins(old.Origins, next.Origins)
		if len(next.Signature) == 0 {
			next.Signature = old.Signature
		}
	} else {
		next.Generation = max(old.Generation+1, now.Unix())
		next.Published = instant(now.Unix())
	}
	if p.Generation != 0 {
		if p.Generation < old.Generation || p.Generation == old.Generation && !again {
			return catalog.Content{}, fmt.Errorf("%w: signed is %d, the current one is %d", catalog.ErrOlder, p.Generation, old.Generation)
		}
		next.Generation = p.Generation
	}
	next.Groups = slices.Compact(slices.Sorted(slices.Values(next.Groups)))
	return next, nil
}

// mayRenew reports whether a distribution point may register what it holds of old: the same
// bytes again, or others for what it was the first to register.
func mayRenew(old record, device wire.DeviceID, again bool) bool {
	origin := slices.ContainsFunc(old.Origins, func(o catalog.Origin) bool { return o.Device == device })
	return origin && (again || old.Owner == device)
}

func nameOf(r record, known bool) string {
	if !known {
		return "none"
	}
	return r.ManifestDigest.Short()
}

// mergeOrigins returns old with the new ones added; the same URL keeps its place and is
// registered by whom came last. What one of the new ones' devices registered under other URLs
// is left out: it has moved.
func mergeOrigins(old, add []catalog.Origin) []catalog.Origin {
	var all []catalog.Origin
	for _, o := range old {
		moved := slices.ContainsFunc(add, func(a catalog.Origin) bool { return a.Device == o.Device && !a.Device.IsZero() })
		at := slices.IndexFunc(add, func(a catalog.Origin) bool { return a.URL == o.URL })
		switch {
		case at >= 0:
			all = append(all, add[at])
		case !moved:
			all = append(all, o)
		}
	}
	for _, a := range add {
		if !slices.ContainsFunc(all, func(o catalog.Origin) bool { return o.URL == a.URL }) {
			all = append(all, a)
		}
	}
	return all
}

func writeContent(ctx context.Context, tx *sql.Tx, n catalog.Content) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO contents (`+contentColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10, $11)
		ON CONFLICT (id, version) DO UPDATE SET generation = excluded.generation, manifest_digest = excluded.manifest_digest,
		hash_of_hashes = excluded.hash_of_hashes, size = excluded.size, files = excluded.files,
		metadata_size = excluded.metadata_size, published = excluded.published, recalled = 0,
		signature = excluded.signature, owner = excluded.owner`,
		string(n.Ref.ID), int64(n.Ref.Version), n.Generation, n.ManifestDigest.String(), n.HashOfHashes.String(),
		n.Size, n.Files, n.MetadataSize, seconds(n.Published), string(n.Signature), n.Owner.String())
	if err != nil {
		return err
	}
	if err := forgetDifferences(ctx, tx, n.Ref, n.ManifestDigest); err != nil {
		return err
	}
	if err := clearContent(ctx, tx, n.Ref); err != nil {
		return err
	}
	for _, g := range n.Groups {
		if _, err := tx.ExecContext(ctx, `INSERT INTO content_groups (id, version, group_name) VALUES ($1, $2, $3)`,
			string(n.Ref.ID), int64(n.Ref.Version), g); err != nil {
			return err
		}
	}
	for i, o := range n.Origins {
		if _, err := tx.ExecContext(ctx, `INSERT INTO content_origins (id, version, position, url, device) VALUES ($1, $2, $3, $4, $5)`,
			string(n.Ref.ID), int64(n.Ref.Version), i, o.URL, o.Device.String()); err != nil {
			return err
		}
	}
	return nil
}

// clearContent forgets groups and origins.
func clearContent(ctx context.Context, tx *sql.Tx, ref content.Ref) error {
	for _, q := range []string{
		`DELETE FROM content_groups WHERE id = $1 AND version = $2`,
		`DELETE FROM content_origins WHERE id = $1 AND version = $2`,
	} {
		if _, err := tx.ExecContext(ctx, q, string(ref.ID), int64(ref.Version)); err != nil {
			return err
		}
	}
	return nil
}

// current returns ref's row, recalled or not, with groups, origins and URLs.
func current(ctx context.Context, q querier, ref content.Ref) (record, error) {
	row := q.QueryRowContext(ctx, `SELECT `+contentColumns+` FROM contents WHERE id = $1 AND version = $2`,
		string(ref.ID), int64(ref.Version))
	return complete(ctx, q, row)
}

func complete(ctx context.Context, q querier, row scanner) (record, error) {
	r, err := scanContent(row)
	if err != nil {
		return r, err
	}
	err = attach(ctx, q, &r.Content)
	return r, err
}

// attach reads groups, origins and URLs.
func attach(ctx context.Context, q querier, c *catalog.Content) (err error) {
	id, version := string(c.Ref.ID), int64(c.Ref.Version)
	c.Groups, err = collect(ctx, q, scanString,
		`SELECT group_name FROM content_groups WHERE id = $1 AND version = $2 ORDER BY group_name`, id, version)
	if err != nil {
		return err
	}
	c.Origins, err = collect(ctx, q, scanOrigin,
		`SELECT url, device FROM content_origins WHERE id = $1 AND version = $2 ORDER BY position`, id, version)
	if err != nil {
		return err
	}
	c.URLs, err = collect(ctx, q, scanString, `SELECT url FROM content_urls WHERE id = $1 AND version = $2 ORDER BY url`, id, version)
	return err
}

// Origins implements catalog.Origins.
func (c *Catalog) Origins(ctx context.Context, most int) ([]catalog.Origin, error) {
	all, err := collect(ctx, c.read, scanOrigin, `SELECT o.url, o.device
		FROM content_origins o JOIN contents c ON c.id = o.id AND c.version = o.version
		WHERE c.recalled = 0 AND o.device <> $1 AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.id = o.device AND d.revoked > 0)
		GROUP BY o.url, o.device ORDER BY COUNT(*) DESC, o.url LIMIT $2`, wire.DeviceID{}.String(), most)
	if err != nil {
		return nil, fmt.Errorf("catalog: origins: %w", err)
	}
	return all, nil
}

func scanString(row scanner) (s string, err error) {
	err = row.Scan(&s)
	return s, err
}

func scanOrigin(row scanner) (o catalog.Origin, err error) {
	var device string
	if err = row.Scan(&o.URL, &device); err != nil {
		return o, err
	}
	o.Device, err = wire.ParseDeviceID(device)
	return o, err
}

// Content implements catalog.Contents.
func (c *Catalog) Content(ctx context.Context, ref content.Ref) (catalog.Content, error) {
	return c.find(ctx, ref, "")
}

// isReadable is the condition that group $3 may read a row of contents.
const isReadable = ` AND (NOT EXISTS (SELECT 1 FROM content_groups g WHERE g.id = contents.id AND g.version = contents.version)
	OR EXISTS (SELECT 1 FROM content_groups g WHERE g.id = contents.id AND g.version = contents.version AND g.group_name = $3))`

// Readable implements catalog.Contents.
func (c *Catalog) Readable(ctx context.Context, ref content.Ref, group string) (catalog.Content, error) {
	return c.find(ctx, ref, isReadable, group)
}

// find returns what is current of ref among those that also meet the condition.
func (c *Catalog) find(ctx context.Context, ref content.Ref, condition string, args ...any) (catalog.Content, error) {
	query := `SELECT ` + contentColumns + ` FROM contents WHERE id = $1 AND (version = $2 OR $2 = 0) AND recalled = 0` +
		condition + ` ORDER BY version DESC LIMIT 1`
	args = append([]any{string(ref.ID), int64(ref.Version)}, args...)
	found, err := c.one(ctx, query, args...)
	if err != nil {
		return catalog.Content{}, fmt.Errorf("catalog: content %q: %w", ref, err)
	}
	return found, nil
}

// one reads the content of one row with all that belongs to it.
func (c *Catalog) one(ctx context.Context, query string, args ...any) (catalog.Content, error) {
	var r record
	err := c.view(ctx, func(tx *sql.Tx) (err error) {
		r, err = complete(ctx, tx, tx.QueryRowContext(ctx, query, args...))
		return err
	})
	return r.Content, err
}

// view reads in one snapshot.
func (c *Catalog) view(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := c.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	err = f(tx)
	if rerr := tx.Rollback(); err == nil && !errors.Is(rerr, sql.ErrTxDone) {
		err = rerr
	}
	return err
}

// Contents implements catalog.Contents.
func (c *Catalog) Contents(ctx context.Context) ([]catalog.Content, error) {
	var all []catalog.Content
	err := c.view(ctx, func(tx *sql.Tx) error {
		rows, err := collect(ctx, tx, scanContent, `SELECT `+contentColumns+` FROM contents WHERE recalled = 0 ORDER BY id, version`)
		if err != nil {
			return err
		}
		for i := range rows {
			if err := attach(ctx, tx, &rows[i].Content); err != nil {
				return err
			}
			all = append(all, rows[i].Content)
		}
		counts, err := countDifferences(ctx, tx)
		for i := range all {
			all[i].Differs = counts[all[i].Ref]
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("catalog: list contents: %w", err)
	}
	return all, nil
}

// Recall implements catalog.Contents.
func (c *Catalog) Recall(ctx context.Context, ref content.Ref, now time.Time) error {
	return c.update(ctx, fmt.Sprintf("recall %q", ref), func(tx *sql.Tx) error {
		err := affected(tx.ExecContext(ctx, `UPDATE contents SET recalled = $3 WHERE id = $1 AND version = $2 AND recalled = 0`,
			string(ref.ID), int64(ref.Version), seconds(now)))
		if err != nil {
			return err
		}
		if err := clearURLs(ctx, tx, ref); err != nil {
			return err
		}
		if err := forgetDifferences(ctx, tx, ref, content.Digest{}); err != nil {
			return err
		}
		return clearContent(ctx, tx, ref)
	})
}

// SizeOf implements catalog.Sizes.
func (c *Catalog) SizeOf(ctx context.Context, hashOfHashes content.Digest) (int64, error) {
	var n int64
	err := c.read.QueryRowContext(ctx, `SELECT size FROM contents WHERE hash_of_hashes = $1 AND recalled = 0 LIMIT 1`,
		hashOfHashes.String()).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("catalog: size of %s: %w", hashOfHashes, notFound(err))
	}
	return n, nil
}
