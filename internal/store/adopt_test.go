package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/store/index"
)

// bytesOf returns size bytes that follow from a seed.
func bytesOf(seed uint64, size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 'b'}).Read(b)
	return b
}

func joined(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// adopt lets a new entry of fx, got for a group, take what it can and checks what it lacks then.
func adopt(t *testing.T, s *Store, fx *fixture, group string, missing int64) {
	t.Helper()
	e := create(t, s, fx, group)
	defer e.Release()
	if _, err := s.Adopt(t.Context(), e, group); err != nil {
		t.Fatal(err)
	}
	heldRight(t, e, fx)
	if got := int64(len(fx.data)) - e.HeldBytes(); got != missing {
		t.Errorf("%d bytes of %s are missing, want %d", got, e.Manifest().Ref, missing)
	}
}

// keep makes a whole entry of fx.
func keep(t *testing.T, s *Store, fx *fixture, groups ...string) {
	t.Helper()
	e := create(t, s, fx, groups...)
	defer e.Release()
	fill(t, e, fx)
}

// changed returns a content of a large file and a small one, and another content where both are
// others but for pieces of the first, and which has the second under another name.
func changed(t *testing.T) (old, next *fixture) {
	t.Helper()
	a, b, c, d := bytesOf(1, mib), bytesOf(2, mib), bytesOf(3, mib), bytesOf(4, mib)
	small := bytesOf(5, 3000)
	old = namedFixture(t, "old", map[string][]byte{"a": joined(a, b, c), "s1": small})
	next = namedFixture(t, "next", map[string][]byte{"b": joined(d, c, a), "t": small})
	return old, next
}

// TestAdoptPieces: pieces of a file that changed, and small files, come from another content.
func TestAdoptPieces(t *testing.T) {
	s := memStore(t, Options{})
	old, next := changed(t)
	keep(t, s, old, "lab")
	adopt(t, s, next, "lab", mib)
}

// TestAdoptFromMany: the pieces of one run lie in several contents, of which one has not all of
// its own.
func TestAdoptFromMany(t *testing.T) {
	s := memStore(t, Options{})
	one, two, three := bytesOf(1, 300_000), bytesOf(2, 300_000), bytesOf(3, 300_000)
	keep(t, s, namedFixture(t, "x", map[string][]byte{"s1": one}), "lab")
	keep(t, s, namedFixture(t, "y", map[string][]byte{"a": bytesOf(9, mib), "s2": two}), "lab")
	part := namedFixture(t, "z", map[string][]byte{"a": bytesOf(8, mib), "t": three, "s1": bytesOf(7, mib)})
	e := create(t, s, part, "lab")
	defer e.Release()
	for run := range part.layout.Runs() - 1 {
		if err := e.Write(run, part.run(run)); err != nil {
			t.Fatal(err)
		}
	}
	adopt(t, s, namedFixture(t, "next", map[string][]byte{"s1": one, "s2": two, "t": three}), "lab", 300_000*3)
	if err := e.Write(part.layout.Runs()-1, part.run(part.layout.Runs()-1)); err != nil {
		t.Fatal(err)
	}
	adopt(t, s, namedFixture(t, "next", map[string][]byte{"s1": one, "s2": two, "t": three}), "lab", 0)
}

// TestAdoptFromMore: more contents give than are opened at a time.
func TestAdoptFromMore(t *testing.T) {
	s := memStore(t, Options{})
	var all []spec
	for i := range openDonors + 8 {
		f := spec{size: 600_000, seed: uint64(i) + 1} // a run each
		keep(t, s, newFixture(t, fmt.Sprint("c", i), []spec{f}), "lab")
		all = append(all, f)
	}
	adopt(t, s, newFixture(t, "next", all), "lab", 0)
}

// TestAdoptOfGroup: a device takes nothing of a group that it is not in.
func TestAdoptOfGroup(t *testing.T) {
	s := memStore(t, Options{})
	old, next := changed(t)
	keep(t, s, old, "lab")
	adopt(t, s, next, "office", int64(len(next.data)))
	retired := namedFixture(t, "next", map[string][]byte{"b": next.file(0)})
	keep(t, s, retired, "lab")
	if err := s.Retire(t.Context(), retired.digest, time.Hour); err != nil {
		t.Fatal(err)
	}
	adopt(t, s, next, "office", int64(len(next.data)))
	create(t, s, old, "office").Release() // asked for there too
	adopt(t, s, next, "office", mib)
}

// TestAdoptSameBytesOfGroup: who asks for the same bytes has them, whatever they were got for.
func TestAdoptSameBytesOfGroup(t *testing.T) {
	s := memStore(t, Options{})
	old, _ := changed(t)
	keep(t, s, old, "lab")
	adopt(t, s, namedFixture(t, "again", map[string][]byte{"a": old.file(0), "s1": old.file(1)}), "office", 0)
}

// TestAdoptLittle: a few bytes are not looked for, but where all of them are.
func TestAdoptLittle(t *testing.T) {
	s := memStore(t, Options{})
	a, b := bytesOf(1, 60_000), bytesOf(2, 60_000)
	keep(t, s, namedFixture(t, "old", map[string][]byte{"a": a, "b": b}), "lab")
	adopt(t, s, namedFixture(t, "few", map[string][]byte{"a": a}), "lab", 60_000)
	adopt(t, s, namedFixture(t, "same", map[string][]byte{"s1": a, "s2": b}), "lab", 0)
	adopt(t, s, namedFixture(t, "most", map[string][]byte{"a": a, "t": a, "z/t": a}), "lab", 0)
}

// TestAdoptRemoved: pieces of an entry that is gone are not looked for in it.
func TestAdoptRemoved(t *testing.T) {
	s := memStore(t, Options{})
	old, next := changed(t)
	keep(t, s, old, "lab")
	if err := s.Remove(t.Context(), old.digest); err != nil {
		t.Fatal(err)
	}
	adopt(t, s, next, "lab", int64(len(next.data)))
}

// TestDonors: of entries with the same pieces one whole one is enough.
func TestDonors(t *testing.T) {
	s := memStore(t, Options{})
	a, b, c := bytesOf(1, mib), bytesOf(2, mib), bytesOf(3, mib)
	for i := range 4 {
		keep(t, s, namedFixture(t, content.ID(fmt.Sprint("two", i)), map[string][]byte{"a": a, "b": b, "s1": bytesOf(uint64(10+i), 10)}), "lab")
	}
	only := namedFixture(t, "only", map[string][]byte{"a": c})
	keep(t, s, only, "lab")
	create(t, s, namedFixture(t, "none", map[string][]byte{"a": a, "b": b, "s1": c}), "lab").Release()
	e := create(t, s, namedFixture(t, "next", map[string][]byte{"b": joined(b, a, c)}), "lab")
	defer e.Release()
	got, err := s.donors(t.Context(), e, "lab")
	if err != nil || len(got) != 3 || got[2] != only.digest {
		t.Errorf("donors %v, %v; want the one that may hold all, one of four, and the last", got, err)
	}
}

// TestUnknownPieces: a cache whose index knows no pieces is brought up to date.
func TestUnknownPieces(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	s := openStore(t, Options{Dir: dir})
	old, next := changed(t)
	keep(t, s, old, "lab")
	closeStore(t, s)
	db, err := sql.Open("sqlite", filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("DROP TRIGGER entry_gone; DROP TABLE pieces"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, Options{Dir: dir})
	s.wg.Wait()
	adopt(t, s, next, "lab", mib)
}

// BenchmarkCreate makes an entry of many small files, and one of a large file.
func BenchmarkCreate(b *testing.B) {
	for name, fx := range map[string]*fixture{"300000 files": many(b, 300_000, 10), "1 GiB": many(b, 1, 1<<30)} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			s := openStore(b, Options{Dir: filepath.Join(dir, "c")})
			for b.Loop() {
				start := time.Now()
				e := create(b, s, fx, "lab")
				b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms-to-create")
				if err := s.idx.Remove(b.Context(), fx.digest); err != nil {
					b.Fatal(err)
				}
				start = time.Now()
				if err := s.enlist(b.Context(), e); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms-of-it-index")
				e.Release()
				if err := s.Remove(b.Context(), fx.digest); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// many is a content of n files of a size whose pieces have made-up hashes.
func many(tb testing.TB, n int, size int64) *fixture {
	tb.Helper()
	var list []content.File
	var pieces [][]content.Digest
	for i := range n {
		var of []content.Digest
		for p := int64(0); p*mib < size; p++ {
			of = append(of, content.DigestOf(fmt.Append(nil, i, p)))
		}
		list = append(list, content.File{Name: fmt.Sprintf("f%06d", i), Size: size, SHA256: of[0]})
		pieces = append(pieces, of)
	}
	m, h, err := content.BuildManifest(content.Ref{ID: "many", Version: 1}, list, pieces)
	if err != nil {
		tb.Fatal(err)
	}
	fx := &fixture{manifest: content.AppendManifest(nil, m), hashes: content.AppendHashFileRaw(nil, h)}
	fx.digest = content.DigestOf(fx.manifest)
	return fx
}

// BenchmarkAdopt takes 64 MiB of pieces from another content, among others of a million pieces
// in all: how long it takes to find them, and to copy them.
func BenchmarkAdopt(b *testing.B) {
	for _, entries := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) { benchAdopt(b, entries) })
	}
}

func benchAdopt(b *testing.B, entries int) {
	const size = 64
	s := openStore(b, Options{Dir: filepath.Join(b.TempDir(), "c")})
	var parts, back [][]byte
	for i := range uint64(size) {
		parts = append(parts, bytesOf(i, mib))
		back = append([][]byte{parts[i]}, back...)
	}
	old := namedFixture(b, "old", map[string][]byte{"a": joined(parts...)})
	e := create(b, s, old, "lab")
	fill(b, e, old)
	e.Release()
	crowd(b, s, entries, 1_000_000/entries)
	next := namedFixture(b, "next", map[string][]byte{"a": joined(back...)})
	b.SetBytes(size * mib)
	for b.Loop() {
		e := create(b, s, next, "lab")
		start := time.Now()
		if got, err := s.donors(b.Context(), e, "lab"); err != nil || len(got) != 1 {
			b.Fatalf("donors %v, %v", got, err)
		}
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms-to-find")
		if runs, err := s.Adopt(b.Context(), e, "lab"); err != nil || runs != size {
			b.Fatalf("%d runs, %v", runs, err)
		}
		e.Release()
		if err := s.Remove(b.Context(), next.digest); err != nil {
			b.Fatal(err)
		}
	}
}

// crowd puts entries with so many pieces into the index.
func crowd(b *testing.B, s *Store, entries, pieces int) {
	b.Helper()
	for i := range entries {
		keys := make([]byte, 0, pieces*index.KeySize)
		for range pieces {
			keys = binary.BigEndian.AppendUint64(keys, rand.Uint64())
		}
		_, err := s.idx.Put(context.Background(), index.Entry{
			Ref: content.Ref{ID: content.ID(fmt.Sprint("crowd", i)), Version: 1}, Digest: content.DigestOf(fmt.Append(nil, "crowd", i)),
			Complete: true, Groups: []string{"lab"}, Created: time.Unix(0, 0),
		}, keys)
		if err != nil {
			b.Fatal(err)
		}
	}
}
