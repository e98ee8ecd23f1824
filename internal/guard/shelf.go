package guard

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"freshet/internal/content"
	"freshet/internal/freshness"
	"freshet/internal/records"
	"freshet/internal/store"
)

// banTime is how long a device that offers stale content is banned for it.
const banTime = time.Hour

// maxKnown bounds how many manifests' MetadataHashes are remembered.
const maxKnown = 16_384

// Cache is the Shelf over a device's cache.
type Cache struct {
	Store   *store.Store
	Records *records.Book
	Leads   func(digest content.Digest) bool // this device leads in mid-download
	// SumsDir is a directory, made when it is missing. What was read of bytes lies there, so that
	// it is read once: a file for each manifest, by its digest, the SHA-1s of the files back to
	// back. It follows from the cache and may be lost.
	SumsDir string
	Log     *slog.Logger

	mu    sync.Mutex // guards the following
	known map[content.Digest]hashes
	kept  int // how often SHA-1s were
}

// hashes are a manifest's MetadataHashes.
type hashes struct{ sha1, sha256 content.Digest }

var _ Shelf = (*Cache)(nil)

// Held implements Shelf.
func (c *Cache) Held(ctx context.Context, ref content.Ref) ([]freshness.Held, error) {
	digests, err := c.Store.ByRef(ctx, ref)
	if err != nil {
		return nil, err
	}
	var all []freshness.Held
	for _, d := range digests {
		h, err := c.hashesOf(d)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went meanwhile
		}
		if err != nil { // as of one whose bytes must tell; nothing is wrong with the others
			c.Log.Warn("an entry is not read", "content", ref.String(), "manifest", d.Short(), "err", err)
		}
		held := freshness.Held{Digest: d, SHA1Sum: h.sha1, SHA256Sum: h.sha256, Leads: c.Leads(d)}
		if rec, err := c.Records.Get(ctx, d); err == nil {
			held.Generation = uint64(max(rec.Generation, 0))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		all = append(all, held)
	}
	return all, nil
}

// hashesOf returns the MetadataHashes of an entry, taken once.
func (c *Cache) hashesOf(d content.Digest) (hashes, error) {
	c.mu.Lock()
	h, ok := c.known[d]
	kept := c.kept
	c.mu.Unlock()
	if ok {
		return h, nil
	}
	h, err := c.take(d)
	if err == nil {
		c.remember(d, h, kept)
	}
	return h, err
}

// take computes the MetadataHashes of an entry, by the SHA-1s of its bytes where they were read.
func (c *Cache) take(d content.Digest) (h hashes, err error) {
	m, err := c.manifest(d)
	if err != nil {
		return hashes{}, err
	}
	if sums, ok := c.Summed(d); ok && len(sums) == len(m.Files) {
		m = withSums(m, sums)
	}
	h.sha1, h.sha256, err = m.MetadataHashes()
	return h, err
}

// remember keeps what was taken, unless SHA-1s were kept since kept was looked at: they may be of
// this entry, and missing in h.
func (c *Cache) remember(d content.Digest, h hashes, kept int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept != kept {
		return
	}
	if c.known == nil || len(c.known) >= maxKnown {
		c.known = map[content.Digest]hashes{}
	}
	c.known[d] = h
}

// Manifest implements Shelf.
func (c *Cache) Manifest(_ context.Context, d content.Digest) (*content.Manifest, error) {
	return c.manifest(d)
}

func (c *Cache) manifest(d content.Digest) (*content.Manifest, error) {
	e, err := c.Store.Get(d)
	if err != nil {
		return nil, err
	}
	defer e.Release()
	return e.Manifest(), nil
}

// Sums implements Shelf. What was read before is not read again.
func (c *Cache) Sums(ctx context.Context, d content.Digest) ([]content.SHA1, error) {
	e, err := c.Store.Get(d)
	if err != nil {
		return nil, err
	}
	defer e.Release()
	if sums, ok := c.Summed(d); ok && len(sums) == len(e.Manifest().Files) {
		return sums, nil
	}
	sums, err := readSums(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("guard: SHA-1 of the files of %s: %w", d.Short(), err)
	}
	return sums, c.Keep(d, sums)
}

// readSums reads an entry, all of which must be held.
func readSums(ctx context.Context, e *store.Entry) ([]content.SHA1, error) {
	l := e.Layout()
	hashes := make([]hash.Hash, l.Files())
	for i := range hashes {
		hashes[i] = sha1.New()
	}
	buf := make([]byte, content.PieceSize)
	for run := range l.Runs() {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		r := l.Run(run)
		b := buf[:r.Len]
		if err := e.Read(run, 0, r.Len, b); err != nil {
			return nil, err
		}
		for p := r.First; p < r.First+r.Count; p++ {
			n := l.PieceLen(p)
			hashes[l.PieceFile(p)].Write(b[:n])
			b = b[n:]
		}
	}
	sums := make([]content.SHA1, len(hashes))
	for i, h := range hashes {
		h.Sum(sums[i][:0])
	}
	return sums, nil
}

func (c *Cache) sumsFile(d content.Digest) string { return filepath.Join(c.SumsDir, d.String()) }

// Keep implements Shelf.
func (c *Cache) Keep(d content.Digest, sums []content.SHA1) error {
	b := make([]byte, 0, len(sums)*sha1.Size)
	for i := range sums {
		b = append(b, sums[i][:]...)
	}
	if err := os.MkdirAll(c.SumsDir, 0o700); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if err := replaceFile(c.sumsFile(d), b); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, d)
	c.kept++
	return nil
}

// Summed implements Shelf.
func (c *Cache) Summed(d content.Digest) ([]content.SHA1, bool) {
	b, err := os.ReadFile(c.sumsFile(d))
	if err != nil || len(b)%sha1.Size != 0 {
		return nil, false
	}
	sums := make([]content.SHA1, len(b)/sha1.Size)
	for i := range sums {
		copy(sums[i][:], b[i*sha1.Size:])
	}
	return sums, true
}

// Tidy removes what was read of entries that the cache has no more.
func (c *Cache) Tidy(ctx context.Context) error {
	list, err := os.ReadDir(c.SumsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	for _, f := range list {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		d, err := content.ParseDigest(f.Name())
		if err == nil {
			_, err = c.manifest(d)
		}
		if err == nil {
			continue
		}
		if err := os.Remove(filepath.Join(c.SumsDir, f.Name())); err != nil {
			return fmt.Errorf("guard: %w", err)
		}
	}
	return nil
}

// Ban implements Shelf.
func (c *Cache) Ban(ctx context.Context, device freshness.Device, d content.Digest, on bool) error {
	b := store.Ban{Device: device.String(), Digest: d, Until: time.Now().Add(banTime)}
	if on {
		return c.Store.Ban(ctx, b)
	}
	return c.Store.Unban(ctx, b)
}

// Last implements Shelf.
func (c *Cache) Last(ctx context.Context, ref content.Ref) (records.Record, bool) {
	return c.Records.Find(ctx, ref, "")
}
