// Package sqlite is the catalog in one SQLite file.
//
// One connection writes, in transactions that begin IMMEDIATE, so that two writers queue
// instead of failing half-way; several connections read beside it (WAL). A commit is synced:
// what was answered is still there after a power cut. The SQL is plain, so that another engine
// needs few changes; migrations are embedded and run when the file is opened.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"freshet/internal/catalog"
)

//go:embed migrations/*.sql
var migrations embed.FS

// busyTimeout is how long a statement waits for a lock that another process holds.
const busyTimeout = 5 * time.Second

// Catalog is an open catalog file. It is safe for concurrent use.
type Catalog struct {
	write *sql.DB // one connection, every transaction IMMEDIATE
	read  *sql.DB // query only
}

var (
	_ catalog.Contents = (*Catalog)(nil)
	_ catalog.URLs     = (*Catalog)(nil)
	_ catalog.Sizes    = (*Catalog)(nil)
	_ catalog.Sites    = (*Catalog)(nil)
	_ catalog.Groups   = (*Catalog)(nil)
	_ catalog.LANKeys  = (*Catalog)(nil)
	_ catalog.Devices  = (*Catalog)(nil)
	_ catalog.DenyList = (*Catalog)(nil)
	_ catalog.Tokens   = (*Catalog)(nil)
	_ catalog.Settings = (*Catalog)(nil)
	_ catalog.Reports  = (*Catalog)(nil)

	_ catalog.SiteSettings = (*Catalog)(nil)
)

// Open opens the file at path, makes it (0600) where there is none, and brings its tables up
// to date.
func Open(ctx context.Context, path string) (*Catalog, error) {
	c, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("catalog: open %q: %w", path, err)
	}
	return c, nil
}

func open(ctx context.Context, path string) (*Catalog, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	c := &Catalog{}
	if c.write, err = connect(path, "immediate", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"); err != nil {
		return nil, err
	}
	c.write.SetMaxOpenConns(1)
	if err := migrate(ctx, c.write); err != nil {
		return nil, errors.Join(err, c.write.Close())
	}
	if c.read, err = connect(path, "deferred", "query_only(1)"); err != nil {
		return nil, errors.Join(err, c.write.Close())
	}
	c.read.SetMaxOpenConns(max(4, runtime.GOMAXPROCS(0)))
	c.read.SetMaxIdleConns(4)
	return c, nil
}

// connect returns a pool whose transactions begin with this lock and whose connections have
// these pragmas set.
func connect(path, lock string, pragmas ...string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	q := url.Values{"_txlock": {lock}}
	q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()))
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(abs)}).EscapedPath(), RawQuery: q.Encode()}
	return sql.Open("sqlite", u.String())
}

func migrate(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// Close closes the file; what was answered is in it.
func (c *Catalog) Close() error { return errors.Join(c.read.Close(), c.write.Close()) }

// Ping reports whether the file answers.
func (c *Catalog) Ping(ctx context.Context) error { return c.read.PingContext(ctx) }

// update runs f in a transaction that writes, and says what was done to what when it fails.
func (c *Catalog) update(ctx context.Context, what string, f func(tx *sql.Tx) error) error {
	tx, err := c.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("catalog: %s: %w", what, err)
	}
	if err := f(tx); err != nil {
		return errors.Join(fmt.Errorf("catalog: %s: %w", what, err), tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("catalog: %s: %w", what, err)
	}
	return nil
}

// querier is what reading needs: a pool or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// scanner is a row, alone or of many.
type scanner interface{ Scan(dest ...any) error }

// collect reads all rows of a query.
func collect[T any](ctx context.Context, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// affected returns ErrNotFound when a statement changed no row.
func affected(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		return catalog.ErrNotFound
	}
	return err
}

// fresh returns ErrExists when an INSERT … ON CONFLICT DO NOTHING changed no row.
func fresh(res sql.Result, err error) error {
	if err = affected(res, err); errors.Is(err, catalog.ErrNotFound) {
		return catalog.ErrExists
	}
	return err
}

// notFound turns the driver's word for no row into the catalog's.
func notFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return catalog.ErrNotFound
	}
	return err
}

// seconds returns t as Unix seconds, the zero time as 0.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// instant undoes seconds.
func instant(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0)
}
