package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"freshet/internal/content"
	"freshet/internal/disk"
)

const stockDir = "stock"

// maxStockNote bounds the file that tells what stock is of.
const maxStockNote = 1 << 10

// stock is what is left of a content whose manifest is not to be used any more: its verified
// pieces, for another issue of the same content id, and for nobody else.
type stock struct {
	id    content.ID
	size  int64 // bytes reserved
	until time.Time
}

func stockPath(d content.Digest) string { return stockDir + "/" + d.String() }

// Retire takes an entry's name away at once, its pin too: what of it is held stays for a while
// as stock, which [Store.Adopt] takes pieces from for other entries of the same content id. One
// that holds nothing goes. The error is [ErrInUse] while somebody uses it, fs.ErrNotExist when
// there is none.
func (s *Store) Retire(ctx context.Context, d content.Digest, keep time.Duration) error {
	defer s.locks.lock(d)()
	if err := s.retireLocked(ctx, d, keep); err != nil {
		return fmt.Errorf("store: retire entry %s: %w", d.Short(), err)
	}
	return nil
}

// retireLocked is Retire. The caller holds the digest's lock.
func (s *Store) retireLocked(ctx context.Context, d content.Digest, keep time.Duration) error {
	e, err := s.getLocked(d)
	if errors.Is(err, fs.ErrNotExist) { // there is none, or a damaged one
		_, err = s.removeLocked(ctx, d)
	}
	if e == nil || err != nil {
		return err
	}
	err = e.flush(ctx)
	nothing := e.HeldBytes() == 0
	s.release(e)
	if err != nil {
		return err
	}
	if nothing || keep <= 0 {
		_, err := s.removeLocked(ctx, d)
		return err
	}
	if !s.forget(e) {
		return ErrInUse
	}
	e.discard()
	e.closeFiles()
	st := stock{id: e.manifest.Ref.ID, size: e.layout.Size(), until: s.now().Add(keep)}
	if err := s.moveToStock(d, st); err != nil {
		return err
	}
	if err := s.strike(context.WithoutCancel(ctx), d); err != nil {
		s.unsound(d, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.stock[d]; ok {
		s.used -= old.size
	}
	s.stock[d] = st
	s.used += st.size
	return nil
}

// moveToStock makes an entry's directory one of stock, in one step.
func (s *Store) moveToStock(d content.Digest, st stock) error {
	note := fmt.Sprintf("%d\n%s\n", st.until.Unix(), st.id)
	if err := disk.ReplaceFile(s.disk, d.String()+"/stock", []byte(note)); err != nil {
		return err
	}
	if err := s.disk.Mkdir(stockDir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.disk.RemoveAll(stockPath(d)); err != nil {
		return err
	}
	if err := s.disk.Rename(d.String(), stockPath(d)); err != nil {
		return err
	}
	return errors.Join(s.disk.SyncDir(stockDir), s.disk.SyncDir("."))
}

// findStock notes what stock there is when the store opens. What cannot be told goes.
func (s *Store) findStock() error {
	list, err := s.disk.List(stockDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, info := range list {
		d, err := content.ParseDigest(info.Name())
		st, noteErr := s.readStock(d)
		if err != nil || noteErr != nil {
			if err := s.disk.RemoveAll(stockDir + "/" + info.Name()); err != nil {
				return err
			}
			continue
		}
		if st.size, err = s.reserved(stockPath(d)); err != nil {
			return err
		}
		s.stock[d] = st
		s.used += st.size
	}
	return nil
}

func (s *Store) readStock(d content.Digest) (stock, error) {
	b, err := disk.ReadFile(s.disk, stockPath(d)+"/stock", maxStockNote)
	if err != nil {
		return stock{}, err
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) != 3 {
		return stock{}, fmt.Errorf("%d lines say what the stock is, want 2", len(lines)-1)
	}
	unix, err := strconv.ParseInt(lines[0], 10, 64)
	if err != nil {
		return stock{}, err
	}
	id, err := content.ParseID(lines[1])
	return stock{id: id, until: time.Unix(unix, 0)}, err
}

// stockOf returns the stock of a content id.
func (s *Store) stockOf(id content.ID) []content.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []content.Digest
	for d, st := range s.stock {
		if st.id == id && s.now().Before(st.until) {
			out = append(out, d)
		}
	}
	return out
}

// withStock lets use read stock, which does not go meanwhile. Stock that went is passed over.
func (s *Store) withStock(d content.Digest, use func(*Entry) error) error {
	defer s.locks.lock(d)()
	c, err := s.loadAt(stockPath(d), d)
	if err != nil {
		s.log.Debug("stock not opened", "manifest", d.Short(), "err", err)
		return nil
	}
	defer func() {
		c.discard()
		c.closeFiles()
	}()
	return use(c)
}

// evictStock removes stock whose time is over, and more, the one that would go next first, until
// need bytes are freed. It returns the bytes freed.
func (s *Store) evictStock(need int64) (freed int64) {
	s.mu.Lock()
	all := maps.Clone(s.stock)
	s.mu.Unlock()
	order := slices.SortedFunc(maps.Keys(all), func(a, b content.Digest) int { return all[a].until.Compare(all[b].until) })
	for _, d := range order {
		if freed >= need && s.now().Before(all[d].until) {
			break
		}
		unlock := s.locks.tryLock(d)
		if unlock == nil {
			continue // pieces are being taken from it
		}
		if err := s.disk.RemoveAll(stockPath(d)); err != nil {
			s.log.Warn("stock not removed", "manifest", d.Short(), "err", err)
		} else {
			freed += s.unstock(d)
			s.log.Info("stock removed", "manifest", d.Short(), "bytes", all[d].size)
		}
		unlock()
	}
	return freed
}

// unstock forgets stock and returns the bytes that were reserved for it.
func (s *Store) unstock(d content.Digest) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.stock[d]
	if !ok {
		return 0
	}
	delete(s.stock, d)
	s.used -= st.size
	return st.size
}
