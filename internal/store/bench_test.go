package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/store/index"
)

// BenchmarkWrite verifies, writes and commits 1 GiB, as a download does, with a hashing
// goroutine a core. The bound is one core's SHA-256 (about 1.8 GB/s, 0.6 core-seconds a GiB)
// and a write to the page cache (0.26).
func BenchmarkWrite(b *testing.B) {
	const size = 1 << 30
	piece := newFixture(b, "p", sizes(mib))
	f := content.File{Name: "big", Size: size, SHA256: content.DigestOf([]byte("big"))}
	hash := content.DigestOf(piece.data)
	pieces := make([]content.Digest, size/mib)
	for i := range pieces {
		pieces[i] = hash
	}
	m, h, err := content.BuildManifest(content.Ref{ID: "big", Version: 1}, []content.File{f}, [][]content.Digest{pieces})
	if err != nil {
		b.Fatal(err)
	}
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				s := openStore(b, Options{Dir: filepath.Join(b.TempDir(), "c")})
				e, err := s.Create(context.Background(), content.AppendManifest(nil, m), content.AppendHashFileRaw(nil, h), nil)
				if err != nil {
					b.Fatal(err)
				}
				cpu := cpuTime()
				writeAll(b, e, piece.data, workers)
				b.ReportMetric((cpuTime() - cpu).Seconds(), "core-s/GiB")
				e.Release()
				if err := s.Remove(context.Background(), e.Digest()); err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
		})
	}
}

func writeAll(b *testing.B, e *Entry, data []byte, workers int) {
	b.Helper()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for run := w; run < e.Layout().Runs(); run += workers {
				if !e.Verify(run, data) {
					b.Error("does not verify")
				}
				if err := e.Write(run, data); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := e.Sync(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkOpen opens a cache with an index of 100,000 entries; the aim is under a second.
func BenchmarkOpen(b *testing.B) {
	const n = 100_000
	dir := filepath.Join(b.TempDir(), "c")
	s := openStore(b, Options{Dir: dir})
	db, err := sql.Open("sqlite", filepath.Join(dir, "index"))
	if err != nil {
		b.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		d := content.DigestOf(fmt.Append(nil, i))
		_, err := tx.Exec("INSERT INTO entries VALUES (?,?,?,1,1000000,1000000,1,'lab',?,?,0,0)", d[:], d[:], fmt.Sprint("id", i), i, i)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := tx.Exec("INSERT INTO pieces VALUES (?,?)", d[:], index.AppendKeys(nil, []content.Digest{d})); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(tx.Commit(), db.Close()); err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		start := time.Now()
		s, err := Open(context.Background(), Options{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms-to-open")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
