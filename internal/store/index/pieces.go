package index

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"io/fs"
	"iter"

	"freshet/internal/content"
)

// KeySize is how many bytes of a piece's hash are its key. Two pieces with the same key and
// different hashes are possible and as good as never seen: who takes a piece checks its hash.
const KeySize = 8

// Key is what a piece is found by.
type Key uint64

// KeyOf returns the key of the piece with a hash.
func KeyOf(hash content.Digest) Key { return Key(binary.BigEndian.Uint64(hash[:KeySize])) }

// AppendKeys appends the keys of pieces as the index keeps them.
func AppendKeys(b []byte, pieces []content.Digest) []byte {
	for i := range pieces {
		b = append(b, pieces[i][:KeySize]...)
	}
	return b
}

// Keys returns the keys that AppendKeys appended.
func Keys(b []byte) iter.Seq[Key] {
	return func(yield func(Key) bool) {
		for ; len(b) >= KeySize; b = b[KeySize:] {
			if !yield(Key(binary.BigEndian.Uint64(b))) {
				return
			}
		}
	}
}

// EachPieces calls f with the keys of the pieces of each entry, the entry noted last first, until
// f returns false. f does not keep the keys.
func (x *Index) EachPieces(ctx context.Context, f func(d content.Digest, keys []byte) bool) error {
	rows, err := x.read.QueryContext(ctx, "SELECT digest, keys FROM pieces ORDER BY rowid DESC")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var d, keys sql.RawBytes
		if err := rows.Scan(&d, &keys); err != nil {
			return err
		}
		if len(d) == len(content.Digest{}) && !f(content.Digest(d), keys) {
			return nil
		}
	}
	return rows.Err()
}

// Holder is what the index tells of an entry to take pieces from.
type Holder struct {
	Complete bool
	Groups   []string
	Keys     []byte // of its pieces
}

// Holder returns what is known of an entry. fs.ErrNotExist.
func (x *Index) Holder(ctx context.Context, d content.Digest) (h Holder, err error) {
	var groups string
	err = x.read.QueryRowContext(ctx, "SELECT complete, groups, keys FROM entries JOIN pieces USING (digest) WHERE digest = ?", d[:]).
		Scan(&h.Complete, &groups, &h.Keys)
	if errors.Is(err, sql.ErrNoRows) {
		err = fs.ErrNotExist
	}
	h.Groups = splitGroups(groups)
	return h, err
}
