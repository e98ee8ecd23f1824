package store

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
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"freshet/internal/content"
)

// indexVersion is the index's user_version. An older index is brought up to date by
// indexSchema alone, whose statements change nothing that is there; a newer one is refused.
const indexVersion = 1

// The index. Times are Unix seconds, 0 for never; sizes are bytes; digests are 32 bytes.
// entries and files follow from the directories, but for last_use, pinned and expires.
const indexSchema = `
CREATE TABLE IF NOT EXISTS entries (
	digest BLOB PRIMARY KEY, hash_of_hashes BLOB NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL,
	size INTEGER NOT NULL, held INTEGER NOT NULL, complete INTEGER NOT NULL, groups TEXT NOT NULL,
	created INTEGER NOT NULL, last_use INTEGER NOT NULL, expires INTEGER NOT NULL, pinned INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_hash_of_hashes ON entries (hash_of_hashes);
CREATE INDEX IF NOT EXISTS entries_last_use ON entries (last_use);
CREATE TABLE IF NOT EXISTS files (
	sha256 BLOB NOT NULL, digest BLOB NOT NULL, file INTEGER NOT NULL, PRIMARY KEY (sha256, digest, file)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_digest ON files (digest);
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, json BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bans (
	device TEXT NOT NULL, digest BLOB NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (device, digest)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (sound INTEGER NOT NULL);
`

// index is the SQLite file. One connection writes, others read.
type index struct {
	name  string
	write *sql.DB // one connection, BEGIN IMMEDIATE; a commit survives the process, and hard ones a power cut
	read  *sql.DB

	mu   sync.Mutex
	used map[content.Digest]int64 // last uses that are not written yet, Unix seconds; guarded by mu
}

// openIndex opens or makes the index. It is not sound when it is new, was not closed, or was
// damaged and put aside.
func openIndex(ctx context.Context, name string, log *slog.Logger) (x *index, sound bool, err error) {
	if st, err := os.Lstat(name); err == nil && !st.Mode().IsRegular() {
		return nil, false, fmt.Errorf("index %q is %s, not a file; remove it", name, kindOf(st))
	}
	x, sound, err = tryIndex(ctx, name)
	if !isDamaged(err) {
		return x, sound, err
	}
	log.Warn("index is damaged, put aside and made anew; jobs, bans and pins in it are lost", "index", name, "err", err)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(name+suffix, name+".damaged"+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, false, err
		}
	}
	return tryIndex(ctx, name)
}

func isDamaged(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff
	return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
}

func tryIndex(ctx context.Context, name string) (*index, bool, error) {
	x := &index{name: name, used: make(map[content.Digest]int64)}
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
		x.close()
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
func (x *index) prepare(ctx context.Context) (sound bool, err error) {
	var version, rows int
	if err := x.write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return false, err
	}
	if version > indexVersion {
		return false, &VersionError{What: "index", Version: version}
	}
	err = x.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, indexSchema); err != nil {
			return err
		}
		if err := tx.QueryRowContext(ctx, "SELECT count(*), coalesce(max(sound), 0) FROM state").Scan(&rows, &sound); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d; DELETE FROM state; INSERT INTO state VALUES (0)", indexVersion))
		return err
	})
	return sound, err
}

func (x *index) tx(ctx context.Context, f func(*sql.Tx) error) error {
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
func (x *index) hard(ctx context.Context, query string, args ...any) error {
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

func (x *index) close() error { return errors.Join(x.read.Close(), x.write.Close()) }

// setSound notes that the index agrees with the directories, which are closed.
func (x *index) setSound() error {
	ctx := context.Background()
	if err := x.flushUses(ctx); err != nil {
		return err
	}
	_, err := x.write.ExecContext(ctx, "UPDATE state SET sound = 1")
	return err
}

func (x *index) totalSize(ctx context.Context) (n int64, err error) {
	err = x.read.QueryRowContext(ctx, "SELECT coalesce(sum(size), 0) FROM entries").Scan(&n)
	return n, err
}

// put notes an entry and returns by how many bytes the cache grew: 0 when it was known.
func (x *index) put(ctx context.Context, e *Entry, now time.Time) (grown int64, err error) {
	m := e.manifest
	err = x.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `INSERT INTO entries VALUES (?,?,?,?,?,?,?,?,?,?,0,0) ON CONFLICT DO NOTHING`,
			e.digest[:], m.HashOfHashes[:], string(m.Ref.ID), int64(m.Ref.Version), m.Size, e.HeldBytes(), e.Complete(),
			strings.Join(e.Groups(), "\n"), now.Unix(), now.Unix())
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err
		}
		grown = m.Size
		return putFiles(ctx, tx, e)
	})
	return grown, err
}

// putFiles notes the large files of an entry.
func putFiles(ctx context.Context, tx *sql.Tx, e *Entry) error {
	stmt, err := tx.PrepareContext(ctx, "INSERT OR IGNORE INTO files VALUES (?,?,?)")
	if err != nil {
		return err
	}
	defer stmt.Close()
	for i, f := range e.manifest.Files {
		if !isLarge(e.layout, i) {
			continue
		}
		if _, err := stmt.ExecContext(ctx, f.SHA256[:], e.digest[:], i); err != nil {
			return err
		}
	}
	return nil
}

// size returns the bytes of an entry, 0 when it is not known.
func (x *index) size(ctx context.Context, d content.Digest) (n int64, err error) {
	err = x.read.QueryRowContext(ctx, "SELECT size FROM entries WHERE digest = ?", d[:]).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return n, err
}

// remove forgets an entry.
func (x *index) remove(ctx context.Context, d content.Digest) error {
	x.mu.Lock()
	delete(x.used, d)
	x.mu.Unlock()
	return x.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM entries WHERE digest = ?", d[:]); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM files WHERE digest = ?", d[:])
		return err
	})
}

func (x *index) setHeld(ctx context.Context, e *Entry) error {
	held, complete := e.HeldBytes(), e.Complete()
	_, err := x.write.ExecContext(ctx, "UPDATE entries SET held = ?, complete = ? WHERE digest = ? AND (held != ? OR complete != ?)",
		held, complete, e.digest[:], held, complete)
	return err
}

func (x *index) setGroups(ctx context.Context, d content.Digest, groups []string) error {
	_, err := x.write.ExecContext(ctx, "UPDATE entries SET groups = ? WHERE digest = ?", strings.Join(groups, "\n"), d[:])
	return err
}

// touch notes a use; it is written with others when somebody asks for them.
func (x *index) touch(d content.Digest, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.used[d] = now.Unix()
}

func (x *index) flushUses(ctx context.Context) error {
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

func (x *index) digests(ctx context.Context, query string, args ...any) ([]content.Digest, error) {
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

func (x *index) byHashOfHashes(ctx context.Context, h content.Digest) ([]content.Digest, error) {
	return x.digests(ctx, "SELECT digest FROM entries WHERE hash_of_hashes = ? ORDER BY complete DESC, digest", h[:])
}
