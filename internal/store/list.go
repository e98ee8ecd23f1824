package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"freshet/internal/content"
)

// State tells how far an entry is.
type State string

const (
	Partial  State = "partial"  // pieces are missing
	Complete State = "complete" // all pieces are held
)

// Info is what is shown of an entry.
type Info struct {
	Ref          content.Ref
	Digest       content.Digest // of the manifest
	HashOfHashes content.Digest
	Size         int64 // bytes of all files
	Held         int64 // bytes held
	State        State
	Groups       []string
	Created      time.Time
	LastUse      time.Time
	Expires      time.Time // zero: never
	Pinned       bool
	InUse        bool
}

// List returns what is in the cache, the latest used first.
func (s *Store) List(ctx context.Context) ([]Info, error) {
	list, err := s.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("store: list: %w", err)
	}
	s.mu.Lock()
	loaded := make(map[content.Digest]*Entry, len(s.loaded))
	inUse := make(map[content.Digest]bool)
	for d, e := range s.loaded {
		loaded[d] = e
		inUse[d] = e.refs > 0
	}
	s.mu.Unlock()
	for i := range list {
		e := loaded[list[i].Digest]
		if e == nil {
			continue
		}
		list[i].InUse = inUse[e.digest]
		list[i].Held, list[i].State = e.HeldBytes(), stateOf(e.Complete())
	}
	return list, nil
}

func stateOf(complete bool) State {
	if complete {
		return Complete
	}
	return Partial
}

func (s *Store) list(ctx context.Context) ([]Info, error) {
	if err := s.idx.flushUses(ctx); err != nil {
		return nil, err
	}
	rows, err := s.idx.read.QueryContext(ctx, `SELECT digest, hash_of_hashes, id, version, size, held, complete, groups,
		created, last_use, expires, pinned FROM entries ORDER BY last_use DESC, digest`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Info
	for rows.Next() {
		i, err := scanInfo(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, rows.Err()
}

func scanInfo(rows *sql.Rows) (Info, error) {
	var (
		i                         Info
		digest, hoh               []byte
		groups                    string
		complete                  bool
		created, lastUse, expires int64
	)
	err := rows.Scan(&digest, &hoh, &i.Ref.ID, &i.Ref.Version, &i.Size, &i.Held, &complete, &groups,
		&created, &lastUse, &expires, &i.Pinned)
	if err != nil {
		return i, err
	}
	copy(i.Digest[:], digest)
	copy(i.HashOfHashes[:], hoh)
	i.State = stateOf(complete)
	i.Groups = strings.FieldsFunc(groups, func(r rune) bool { return r == '\n' })
	i.Created, i.LastUse = time.Unix(created, 0), time.Unix(lastUse, 0)
	if expires != 0 {
		i.Expires = time.Unix(expires, 0)
	}
	return i, nil
}

// Pin keeps an entry from being evicted, or no longer.
func (s *Store) Pin(ctx context.Context, d content.Digest, pinned bool) error {
	return s.set(ctx, d, "pinned", pinned)
}

// SetExpiry sets when an entry expires: it is evicted before all others then. The zero time
// stands for never.
func (s *Store) SetExpiry(ctx context.Context, d content.Digest, at time.Time) error {
	unix := int64(0)
	if !at.IsZero() {
		unix = at.Unix()
	}
	return s.set(ctx, d, "expires", unix)
}

func (s *Store) set(ctx context.Context, d content.Digest, column string, value any) error {
	res, err := s.idx.write.ExecContext(ctx, "UPDATE entries SET "+column+" = ? WHERE digest = ?", value, d[:])
	if err == nil {
		var n int64
		if n, err = res.RowsAffected(); err == nil && n == 0 {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		return fmt.Errorf("store: set %s of entry %s: %w", column, d.Short(), err)
	}
	return nil
}

// Remove deletes an entry. The error is [ErrInUse] while somebody uses it, fs.ErrNotExist
// when there is none.
func (s *Store) Remove(ctx context.Context, d content.Digest) error {
	defer s.locks.lock(d)()
	if _, err := s.removeLocked(ctx, d); err != nil {
		return fmt.Errorf("store: remove entry %s: %w", d.Short(), err)
	}
	return nil
}

// removeLocked takes the entry's directory away in one step and then deletes what is in it.
// The caller holds the digest's lock.
func (s *Store) removeLocked(ctx context.Context, d content.Digest) (size int64, err error) {
	s.mu.Lock()
	e, closed := s.loaded[d], s.closed
	s.mu.Unlock()
	if closed {
		return 0, ErrClosed
	}
	if e != nil {
		if !s.forget(e) {
			return 0, ErrInUse
		}
		e.discard()
		s.handles.drop(e)
	}
	temp := tmpDir + "/" + d.String()
	gone := s.disk.removeAll(temp)
	if gone == nil {
		gone = s.disk.rename(d.String(), temp)
	}
	if gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		return 0, gone
	}
	if size, err = s.idx.size(ctx, d); err != nil {
		return 0, err
	}
	if gone == nil {
		err = errors.Join(s.disk.syncDir("."), s.disk.removeAll(temp))
	}
	if serr := s.strike(context.WithoutCancel(ctx), d); serr != nil {
		s.unsound(d, serr)
	}
	return size, errors.Join(gone, err)
}

// strike takes an entry that is gone out of the index. The caller holds the digest's lock.
func (s *Store) strike(ctx context.Context, d content.Digest) error {
	size, err := s.idx.size(ctx, d)
	if err != nil {
		return err
	}
	if err := s.idx.remove(ctx, d); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= size
	return nil
}

// Evict removes entries until need bytes are freed: drafts, all entries that have expired or
// were unused for longer than the greatest age, then those used least recently; never one that
// is pinned or in use. It returns the bytes freed, which may be fewer.
func (s *Store) Evict(ctx context.Context, need int64) (freed int64, err error) {
	if err := s.idx.flushUses(ctx); err != nil {
		s.log.Warn("last uses not written before evicting", "err", err) // a full disk must not hinder it
	}
	now := s.now()
	oldest := int64(-1)
	if s.maxAge > 0 {
		oldest = now.Add(-s.maxAge).Unix()
	}
	drafts := s.evictDrafts(need)
	const expired = "(expires != 0 AND expires <= ?1 OR last_use < ?2)"
	freed, err = s.evict(ctx, 1<<62, "SELECT digest FROM entries WHERE NOT pinned AND "+expired, now.Unix(), oldest)
	freed += drafts
	if err == nil && freed < need {
		var more int64
		more, err = s.evict(ctx, need-freed, "SELECT digest FROM entries WHERE NOT pinned ORDER BY last_use, digest")
		freed += more
	}
	if err != nil {
		return freed, fmt.Errorf("store: evict: %w", err)
	}
	return freed, nil
}

// evict removes the entries of a query, in its order, until need bytes are freed.
func (s *Store) evict(ctx context.Context, need int64, query string, args ...any) (freed int64, err error) {
	digests, err := s.idx.digests(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	for _, d := range digests {
		if freed >= need {
			break
		}
		unlock := s.locks.tryLock(d)
		if unlock == nil {
			continue // being opened or made, so in use
		}
		n, err := s.removeLocked(ctx, d)
		unlock()
		switch {
		case err == nil || errors.Is(err, fs.ErrNotExist):
			freed += n
			s.log.Info("entry evicted", "manifest", d.Short(), "bytes", n)
		case !errors.Is(err, ErrInUse):
			return freed, err
		}
	}
	return freed, nil
}

// discard keeps a removed entry from being committed, after the commit under way.
func (e *Entry) discard() {
	<-e.commitSem
	defer func() { e.commitSem <- struct{}{} }()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending, e.dropped, e.pendingBytes = nil, nil, 0
}

// Job is what the agent keeps of a download over restarts.
type Job struct {
	ID   string
	JSON []byte
}

// PutJob notes a job, in the place of one with the same id. It survives a power cut.
func (s *Store) PutJob(ctx context.Context, j Job) error {
	if err := s.idx.hard(ctx, "INSERT OR REPLACE INTO jobs VALUES (?,?)", j.ID, j.JSON); err != nil {
		return fmt.Errorf("store: put job %q: %w", j.ID, s.explain(err, int64(len(j.JSON))))
	}
	return nil
}

// Job returns one job. fs.ErrNotExist.
func (s *Store) Job(ctx context.Context, id string) (Job, error) {
	j := Job{ID: id}
	err := s.idx.read.QueryRowContext(ctx, "SELECT json FROM jobs WHERE id = ?", id).Scan(&j.JSON)
	if errors.Is(err, sql.ErrNoRows) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Job{}, fmt.Errorf("store: job %q: %w", id, err)
	}
	return j, nil
}

// DeleteJob forgets a job; one that is not there is no error.
func (s *Store) DeleteJob(ctx context.Context, id string) error {
	if err := s.idx.hard(ctx, "DELETE FROM jobs WHERE id = ?", id); err != nil {
		return fmt.Errorf("store: delete job %q: %w", id, err)
	}
	return nil
}

// Jobs returns all jobs in the order of their ids.
func (s *Store) Jobs(ctx context.Context) ([]Job, error) {
	rows, err := s.idx.read.QueryContext(ctx, "SELECT id, json FROM jobs ORDER BY id")
	if err != nil {
		return nil, fmt.Errorf("store: jobs: %w", err)
	}
	defer rows.Close()
	var out []Job
	for rows.Next() {
		var j Job
		if err := rows.Scan(&j.ID, &j.JSON); err != nil {
			return nil, fmt.Errorf("store: jobs: %w", err)
		}
		out = append(out, j)
	}
	return out, rows.Err()
}

// Ban says that a device is not asked for a content until a time.
type Ban struct {
	Device string         // hex id
	Digest content.Digest // of the manifest
	Until  time.Time      // to the second
}

// Ban notes a ban; the later end of two holds.
func (s *Store) Ban(ctx context.Context, b Ban) error {
	err := s.idx.hard(ctx, "INSERT INTO bans VALUES (?,?,?) ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
		b.Device, b.Digest[:], b.Until.Unix())
	if err != nil {
		return fmt.Errorf("store: ban %q: %w", b.Device, err)
	}
	return nil
}

// Bans returns the bans of a content that have not ended, and forgets all that have.
func (s *Store) Bans(ctx context.Context, d content.Digest) ([]Ban, error) {
	now := s.now().Unix()
	if _, err := s.idx.write.ExecContext(ctx, "DELETE FROM bans WHERE until <= ?", now); err != nil {
		return nil, fmt.Errorf("store: bans: %w", err)
	}
	rows, err := s.idx.read.QueryContext(ctx, "SELECT device, until FROM bans WHERE digest = ? ORDER BY device", d[:])
	if err != nil {
		return nil, fmt.Errorf("store: bans: %w", err)
	}
	defer rows.Close()
	var out []Ban
	for rows.Next() {
		b := Ban{Digest: d}
		var until int64
		if err := rows.Scan(&b.Device, &until); err != nil {
			return nil, fmt.Errorf("store: bans: %w", err)
		}
		b.Until = time.Unix(until, 0)
		out = append(out, b)
	}
	return out, rows.Err()
}
