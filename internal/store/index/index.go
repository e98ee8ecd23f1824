// Package index is what a store asks quickly of its cache: a list of its entries and of the pieces
// in them, which follows from the directories and is rebuilt from them, and the jobs, bans,
// pins and expiries, which are nowhere else. It is one SQLite file.
//
// # Pieces
//
// The pieces of an entry are one row: a key for each, the first [KeySize] bytes of its hash, in
// the order of the hash file. Who looks for pieces reads all rows (see [Index.EachPieces]). That
// is less work than a row for each piece would be, where each is found by itself: on one slow
// core an entry of 300,000 pieces is noted in 22 ms, against 5 s in an empty index and 21 s among
// a million others, and forgotten in as many; a million pieces (1 TiB of large files) are read in
// 50 to 90 ms, in 100,000 entries too, and looking 15,000 up one by one takes 580 ms.
package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"freshet/internal/content"
	"freshet/internal/disk"
)

// version is the index's user_version. An older index is brought up to date by
// schema alone, which leaves alone what is nowhere else; a newer one is refused.
const version = 1

// Times are Unix seconds, 0 for never; sizes are bytes; digests are 32 bytes.
// entries and pieces follow from the directories, but for last_use, pinned and expires. An entry
// without pieces is of a freshet that did not note them, and had files instead; the trigger holds
// for that one too, so that no pieces are left of an entry that it removes. Empty keys are of an entry
// that has no pieces, or could not be opened when they were to be noted.
const schema = `
CREATE TABLE IF NOT EXISTS entries (
	digest BLOB PRIMARY KEY, hash_of_hashes BLOB NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL,
	size INTEGER NOT NULL, held INTEGER NOT NULL, complete INTEGER NOT NULL, groups TEXT NOT NULL,
	created INTEGER NOT NULL, last_use INTEGER NOT NULL, expires INTEGER NOT NULL, pinned INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_hash_of_hashes ON entries (hash_of_hashes);
CREATE INDEX IF NOT EXISTS entries_id ON entries (id, version);
CREATE INDEX IF NOT EXISTS entries_last_use ON entries (last_use);
DROP TABLE IF EXISTS files;
CREATE TABLE IF NOT EXISTS pieces (digest BLOB PRIMARY KEY, keys BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS entry_gone AFTER DELETE ON entries BEGIN DELETE FROM pieces WHERE digest = old.digest; END;
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, json BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bans (
	device TEXT NOT NULL, digest BLOB NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (device, digest)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (sound INTEGER NOT NULL);
`

// Index is an open index. One connection writes, others read. Its methods may be called from
// any goroutine.
type Index struct {
	name  string
	write *sql.DB // one connection, BEGIN IMMEDIATE; a commit survives the process, and hard ones a power cut
	read  *sql.DB

	mu   sync.Mutex
	used map[content.Digest]int64 // last uses that are not written yet, Unix seconds; guarded by mu
}

// Open opens or makes the index. It is not sound when it is new, was not closed, does not know the
// pieces of all entries, or was damaged and put aside.
func Open(ctx context.Context, name string, log *slog.Logger) (x *Index, sound bool, err error) {
	if st, err := os.Lstat(name); err == nil && !st.Mode().IsRegular() {
		return nil, false, fmt.Errorf("index %q is %s, not a file; remove it", name, disk.KindOf(st))
	}
	x, sound, err = try(ctx, name)
	if !isDamaged(err) {
		return x, sound, err
	}
	log.Warn("index is damaged, put aside and made anew; jobs, bans and pins in it are lost", "index", name, "err", err)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(name+suffix, name+".damaged"+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, false, err
		}
	}
	return try(ctx, name)
}

func isDamaged(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff
	return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
}

func try(ctx context.Context, name string) (*Index, bool, error) {
	x := &Index{name: name, used: make(map[content.Digest]int64)}
	var err error
	if x.write, err = openSQLite(name, "&_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)", 1); err != nil {
		return nil, false, fmt.Errorf("open index %q: %w", name, err)
	}
	if x.read, err = openSQLite(name, "&_pragma=query_only(1)", 4); err != nil {
		x.write.Close()
		return nil, false, fmt.Errorf("open index %q: %w", name, err)
	}
	sound, err := x.prepare(ctx)
	if err != nil {
		x.Close(false)
		return nil, false, fmt.Errorf("open index %q: %w", name, err)
	}
	return x, sound, nil
}

func openSQLite(name, pragmas string, conns int) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(name), RawQuery: "_pragma=busy_timeout(10000)" + pragmas}
	if !strings.HasPrefix(u.Path, "/") && filepath.IsAbs(name) {
		u.Path = "/" + u.Path // C:/…
	}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	return db, nil
}

// prepare makes the tables and marks the index as not sound until it is closed.
func (x *Index) prepare(ctx context.Context) (sound bool, err error) {
	var found int
	if err := x.write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&found); err != nil {
		return false, err
	}
	if found > version {
		return false, &disk.VersionError{What: "index", Version: found}
	}
	err = x.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, schema); err != nil {
			return err
		}
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(sound), 0) AND
			(SELECT count(*) FROM entries) = (SELECT count(*) FROM pieces) FROM state`).Scan(&sound); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d; DELETE FROM state; INSERT INTO state VALUES (0)", version))
		return err
	})
	return sound, err
}

func (x *Index) tx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := x.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// hard runs a statement whose effect survives a power cut.
func (x *Index) hard(ctx context.Context, query string, args ...any) error {
	c, err := x.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.ExecContext(ctx, "PRAGMA synchronous = FULL"); err != nil {
		return err
	}
	_, err = c.ExecContext(ctx, query, args...)
	_, back := c.ExecContext(context.WithoutCancel(ctx), "PRAGMA synchronous = NORMAL")
	return errors.Join(err, back)
}

// Close closes the index. It is sound when it agrees with the directories, which do not change
// any more.
func (x *Index) Close(sound bool) error {
	var err error
	if sound {
		err = x.setSound()
	}
	return errors.Join(err, x.read.Close(), x.write.Close())
}

func (x *Index) setSound() error {
	ctx := context.Background()
	if err := x.FlushUses(ctx); err != nil {
		return err
	}
	_, err := x.write.ExecContext(ctx, "UPDATE state SET sound = 1")
	return err
}

// IsFull reports whether SQLite found no room.
func IsFull(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL
}
