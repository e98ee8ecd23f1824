package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"freshet/internal/content"
)

const mib = 1 << 20

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a content of made-up files.
type fixture struct {
	manifest []byte
	hashes   []byte // raw
	digest   content.Digest
	layout   *content.Layout
	data     []byte // the concatenation
}

// spec is one file of a fixture; the same seed and size give the same bytes.
type spec struct {
	size       int64
	seed       uint64
	executable bool
}

func sizes(n ...int64) []spec {
	var out []spec
	for i, size := range n {
		out = append(out, spec{size: size, seed: uint64(i) + 1})
	}
	return out
}

// mixed is large, small, empty and tail in one: 4 MiB and a bit.
func mixed() []spec { return sizes(2*mib+100, 10, 0, 3000, mib, mib+5, 70000, 1) }

func newFixture(tb testing.TB, id string, files []spec) *fixture {
	tb.Helper()
	var list []content.File
	var pieces [][]content.Digest
	fx := &fixture{}
	h := content.NewFileHasher()
	for i, s := range files {
		b := make([]byte, s.size)
		rand.NewChaCha8([32]byte{byte(s.seed), byte(s.seed >> 8), byte(s.size), byte(s.size >> 8)}).Read(b)
		h.Write(b)
		f, p := h.Sum(fmt.Sprintf("f%06d", i), s.executable)
		list, pieces = append(list, f), append(pieces, p)
		fx.data = append(fx.data, b...)
	}
	m, hf, err := content.BuildManifest(content.Ref{ID: content.ID(id), Version: 1}, list, pieces)
	if err != nil {
		tb.Fatal(err)
	}
	fx.manifest = content.AppendManifest(nil, m)
	fx.hashes = content.AppendHashFileRaw(nil, hf)
	fx.digest = content.DigestOf(fx.manifest)
	fx.layout = content.NewLayout(m.Files)
	return fx
}

// run returns the bytes of a run.
func (fx *fixture) run(run int) []byte {
	r := fx.layout.Run(run)
	return fx.data[r.Offset : r.Offset+int64(r.Len)]
}

// file returns the bytes of a file.
func (fx *fixture) file(i int) []byte {
	off := fx.layout.FileOffset(i)
	return fx.data[off : off+fx.layout.FileSize(i)]
}

func openStore(tb testing.TB, o Options) *Store {
	tb.Helper()
	s, err := Open(context.Background(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func closeStore(tb testing.TB, s *Store) {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
}

func create(tb testing.TB, s *Store, fx *fixture, groups ...string) *Entry {
	tb.Helper()
	e, err := s.Create(context.Background(), fx.manifest, fx.hashes, groups)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func get(tb testing.TB, s *Store, fx *fixture) *Entry {
	tb.Helper()
	e, err := s.Get(fx.digest)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// fill writes the runs that are missing and makes them durable.
func fill(tb testing.TB, e *Entry, fx *fixture) {
	tb.Helper()
	for run := range e.Layout().Runs() {
		if err := e.Write(run, fx.run(run)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := e.Sync(context.Background()); err != nil {
		tb.Fatal(err)
	}
}

// stored makes a store with one complete entry and returns its directory.
func stored(tb testing.TB, fx *fixture) string {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "cache")
	s := openStore(tb, Options{Dir: dir})
	e := create(tb, s, fx, "lab")
	fill(tb, e, fx)
	e.Release()
	closeStore(tb, s)
	return dir
}

// heldRight reports every run that is held and reads wrong.
func heldRight(tb testing.TB, e *Entry, fx *fixture) {
	tb.Helper()
	buf := make([]byte, mib)
	for run := range e.HeldRuns().All {
		b := buf[:fx.layout.Run(run).Len]
		if err := e.readAt(fx.layout.Run(run).Offset, b); err != nil {
			tb.Errorf("run %d is held and cannot be read: %v", run, err)
		} else if !bytes.Equal(b, fx.run(run)) {
			tb.Errorf("run %d is held and its bytes are wrong", run)
		}
	}
}

func wantErr(tb testing.TB, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("got error %v, want %v", err, want)
	}
}
