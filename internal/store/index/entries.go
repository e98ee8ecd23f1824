package index

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"strings"
	"time"

	"freshet/internal/content"
)

// Entry is what the index tells of an entry.
type Entry struct {
	Ref          content.Ref
	Digest       content.Digest // of the manifest
	HashOfHashes content.Digest
	Size         int64 // bytes of all files
	Held         int64 // bytes held
	Complete     bool
	Groups       []string
	Created      time.Time
	LastUse      time.Time
	Expires      time.Time // zero: never
	Pinned       bool
}

// TotalSize returns the bytes of all entries.
func (x *Index) TotalSize(ctx context.Context) (n int64, err error) {
	err = x.read.QueryRowContext(ctx, "SELECT coalesce(sum(size), 0) FROM entries").Scan(&n)
	return n, err
}

// Put notes an entry, last used when it was created and neither pinned nor expiring, and the keys
// of its pieces. It returns by how many bytes the cache grew: 0 when the entry was known, which
// changes nothing but pieces that are not.
func (x *Index) Put(ctx context.Context, e Entry, keys []byte) (grown int64, err error) {
	err = x.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `INSERT INTO entries VALUES (?,?,?,?,?,?,?,?,?,?,0,0) ON CONFLICT DO NOTHING`,
			e.Digest[:], e.HashOfHashes[:], string(e.Ref.ID), int64(e.Ref.Version), e.Size, e.Held, e.Complete,
			strings.Join(e.Groups, "\n"), e.Created.Unix(), e.Created.Unix())
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n > 0 {
			grown = e.Size
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO pieces VALUES (?,coalesce(?,x'')) ON CONFLICT DO UPDATE
			SET keys = excluded.keys WHERE length(pieces.keys) = 0`, e.Digest[:], keys)
		return err
	})
	return grown, err
}

// PutUnread notes that the pieces of an entry cannot be told, so that the index is sound without
// them. An entry that is not known stays so.
func (x *Index) PutUnread(ctx context.Context, d content.Digest) error {
	_, err := x.write.ExecContext(ctx, "INSERT OR IGNORE INTO pieces SELECT digest, x'' FROM entries WHERE digest = ?", d[:])
	return err
}

// Size returns the bytes of an entry, 0 when it is not known.
func (x *Index) Size(ctx context.Context, d content.Digest) (n int64, err error) {
	err = x.read.QueryRowContext(ctx, "SELECT size FROM entries WHERE digest = ?", d[:]).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return n, err
}

// Remove forgets an entry.
func (x *Index) Remove(ctx context.Context, d content.Digest) error {
	x.mu.Lock()
	delete(x.used, d)
	x.mu.Unlock()
	_, err := x.write.ExecContext(ctx, "DELETE FROM entries WHERE digest = ?", d[:])
	return err
}

// SetHeld notes how many bytes of an entry are held.
func (x *Index) SetHeld(ctx context.Context, d content.Digest, held int64, complete bool) error {
	_, err := x.write.ExecContext(ctx, "UPDATE entries SET held = ?, complete = ? WHERE digest = ? AND (held != ? OR complete != ?)",
		held, complete, d[:], held, complete)
	return err
}

// SetGroups notes the groups that an entry was got for.
func (x *Index) SetGroups(ctx context.Context, d content.Digest, groups []string) error {
	_, err := x.write.ExecContext(ctx, "UPDATE entries SET groups = ? WHERE digest = ?", strings.Join(groups, "\n"), d[:])
	return err
}

// Touch notes a use; it is written with others when somebody asks for them.
func (x *Index) Touch(d content.Digest, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.used[d] = now.Unix()
}

// FlushUses writes the uses noted.
func (x *Index) FlushUses(ctx context.Context) error {
	x.mu.Lock()
	used := x.used
	x.used = make(map[content.Digest]int64)
	x.mu.Unlock()
	if len(used) == 0 {
		return nil
	}
	return x.tx(ctx, func(tx *sql.Tx) error {
		for d, at := range used {
			if _, err := tx.ExecContext(ctx, "UPDATE entries SET last_use = max(last_use, ?) WHERE digest = ?", at, d[:]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (x *Index) digests(ctx context.Context, query string, args ...any) ([]content.Digest, error) {
	rows, err := x.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []content.Digest
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return nil, err
		}
		if len(b) == len(content.Digest{}) {
			out = append(out, content.Digest(b))
		}
	}
	return out, rows.Err()
}

// ByHashOfHashes returns the entries of these bytes, complete ones first.
func (x *Index) ByHashOfHashes(ctx context.Context, h content.Digest) ([]content.Digest, error) {
	return x.digests(ctx, "SELECT digest FROM entries WHERE hash_of_hashes = ? ORDER BY complete DESC, digest", h[:])
}

// ByRef returns the entries of one version of a content: limit of them at most.
func (x *Index) ByRef(ctx context.Context, ref content.Ref, limit int) ([]content.Digest, error) {
	return x.digests(ctx, "SELECT digest FROM entries WHERE id = ? AND version = ? ORDER BY digest LIMIT ?", string(ref.ID), int64(ref.Version), limit)
}

// List returns all entries, the latest used first.
func (x *Index) List(ctx context.Context) ([]Entry, error) {
	if err := x.FlushUses(ctx); err != nil {
		return nil, err
	}
	rows, err := x.read.QueryContext(ctx, `SELECT digest, hash_of_hashes, id, version, size, held, complete, groups,
		created, last_use, expires, pinned FROM entries ORDER BY last_use DESC, digest`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Entry
	for rows.Next() {
		e, err := scanEntry(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, rows.Err()
}

func scanEntry(rows *sql.Rows) (Entry, error) {
	var (
		e                         Entry
		digest, hoh               []byte
		groups                    string
		created, lastUse, expires int64
	)
	err := rows.Scan(&digest, &hoh, &e.Ref.ID, &e.Ref.Version, &e.Size, &e.Held, &e.Complete, &groups,
		&created, &lastUse, &expires, &e.Pinned)
	if err != nil {
		return e, err
	}
	copy(e.Digest[:], digest)
	copy(e.HashOfHashes[:], hoh)
	e.Groups = splitGroups(groups)
	e.Created, e.LastUse = time.Unix(created, 0), time.Unix(lastUse, 0)
	if expires != 0 {
		e.Expires = time.Unix(expires, 0)
	}
	return e, nil
}

func splitGroups(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == '\n' })
}

// Pin notes that an entry is pinned, or no longer. fs.ErrNotExist.
func (x *Index) Pin(ctx context.Context, d content.Digest, pinned bool) error {
	return x.set(ctx, d, "pinned", pinned)
}

// SetExpiry notes when an entry expires; the zero time stands for never. fs.ErrNotExist.
func (x *Index) SetExpiry(ctx context.Context, d content.Digest, at time.Time) error {
	unix := int64(0)
	if !at.IsZero() {
		unix = at.Unix()
	}
	return x.set(ctx, d, "expires", unix)
}

func (x *Index) set(ctx context.Context, d content.Digest, column string, value any) error {
	res, err := x.write.ExecContext(ctx, "UPDATE entries SET "+column+" = ? WHERE digest = ?", value, d[:])
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return fs.ErrNotExist
}

// Expired returns the entries, but for pinned ones, that have expired at a time or whose last
// use lies before another.
func (x *Index) Expired(ctx context.Context, now, before time.Time) ([]content.Digest, error) {
	return x.digests(ctx, "SELECT digest FROM entries WHERE NOT pinned AND (expires != 0 AND expires <= ? OR last_use < ?)",
		now.Unix(), before.Unix())
}

// Evictable returns the entries, but for pinned ones, the one unused for longest first.
func (x *Index) Evictable(ctx context.Context) ([]content.Digest, error) {
	return x.digests(ctx, "SELECT digest FROM entries WHERE NOT pinned ORDER BY last_use, digest")
}

// Known returns all entries and whether each is complete and its pieces are noted.
func (x *Index) Known(ctx context.Context) (map[content.Digest]bool, error) {
	rows, err := x.read.QueryContext(ctx, `SELECT digest, complete AND
		digest IN (SELECT digest FROM pieces WHERE length(keys) > 0) FROM entries`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[content.Digest]bool)
	for rows.Next() {
		var b []byte
		var settled bool
		if err := rows.Scan(&b, &settled); err != nil {
			return nil, err
		}
		if len(b) == len(content.Digest{}) {
			out[content.Digest(b)] = settled
		}
	}
	return out, rows.Err()
}
