package deliver

import (
	"crypto/sha1"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"freshet/internal/buffers"
	"freshet/internal/content"
)

const poolSize = 6

// run reads a run of e into a buffer of pool.
func run(t testing.TB, p *Placement, pool *buffers.Pool, r int) []byte {
	t.Helper()
	b, err := pool.Get(t.Context())
	if err == nil {
		err = p.Entry.Read(r, 0, p.Entry.Layout().Run(r).Len, b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b[:p.Entry.Layout().Run(r).Len]
}

// checkAll checks every file, and counts the pieces that were read back.
func checkAll(t testing.TB, p *Placement) (readBack int) {
	t.Helper()
	for i, f := range p.Entry.Manifest().Files {
		r, err := p.Entry.OpenFile(i)
		if err != nil {
			t.Fatal(err)
		}
		read := p.reader(i, r)
		sum, err := p.Sums.check(i, func(n int) ([]byte, error) {
			readBack++
			return read(n)
		})
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		if want := f.SHA1; p.Sums.SHA1() && sum != want {
			t.Errorf("SHA-1 of %q: %s, want %s", f.Name, sum, want)
		}
	}
	return readBack
}

// lent returns how many buffers of the pool are not there.
func lent(pool *buffers.Pool) int {
	n := 0
	var got [][]byte
	for ; n < poolSize; n++ {
		b, ok := pool.TryGet()
		if !ok {
			break
		}
		got = append(got, b)
	}
	for _, b := range got {
		pool.Put(b)
	}
	return poolSize - n
}

// TestSumsInOrder: what arrives in order, or a little before its turn, is never read back.
func TestSumsInOrder(t *testing.T) {
	e := held(t)
	for i, order := range [][]int{{0, 1, 2}, {1, 0, 2}, {2, 1, 0}, {1, 2, 0}} {
		pool := buffers.New(poolSize)
		p := &Placement{Order: Order{Entry: e, Sums: NewSums(e, NewLot(pool, 2), i%2 > 0)}, buf: make([]byte, content.PieceSize)}
		first := firstOfLarge(t, p)
		offer := func(r int) {
			if b := run(t, p, pool, r); !p.Sums.Offer(r, b) {
				pool.Put(b)
			}
		}
		for _, n := range order {
			offer(e.Layout().RunOf(first + n))
		}
		for r := range e.Layout().Runs() {
			offer(r)
		}
		if back := checkAll(t, p); back != 0 {
			t.Errorf("order %v: %d pieces were read back", order, back)
		}
		if n := lent(pool); n != 0 {
			t.Errorf("order %v: %d buffers are still parked", order, n)
		}
	}
}

// firstOfLarge returns the first piece of the only file of several pieces, which has three.
func firstOfLarge(t testing.TB, p *Placement) int {
	t.Helper()
	for i := range p.Entry.Manifest().Files {
		if first, count := p.Entry.Layout().FilePieces(i); count == 3 {
			return first
		}
	}
	t.Fatal("no file of three pieces")
	return 0
}

// TestSumsAnyOrder: whatever arrives, in whatever order, from several goroutines, again or
// never, the sums are right, and every buffer comes back.
func TestSumsAnyOrder(t *testing.T) {
	e := held(t)
	rapid.Check(t, func(rt *rapid.T) {
		pool := buffers.New(poolSize)
		p := &Placement{
			Order: Order{Entry: e, Sums: NewSums(e, NewLot(pool, rapid.IntRange(0, 3).Draw(rt, "places")), rapid.Bool().Draw(rt, "sha1"))},
			buf:   make([]byte, content.PieceSize),
		}
		offers := rapid.SliceOfN(rapid.IntRange(0, e.Layout().Runs()-1), 0, 12).Draw(rt, "offers")
		workers := rapid.IntRange(1, 3).Draw(rt, "workers")
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := w; i < len(offers); i += workers {
					if b := run(t, p, pool, offers[i]); !p.Sums.Offer(offers[i], b) {
						pool.Put(b)
					}
				}
			})
		}
		if rapid.Bool().Draw(rt, "close early") {
			p.Sums.Close()
		}
		checkAll(t, p)
		wg.Wait()
		checkAll(t, p)
		p.Sums.Close()
		if n := lent(pool); n != 0 {
			rt.Fatalf("%d buffers did not come back", n)
		}
	})
}

// TestSumsWrong: bytes that do not fit the manifest's file hash are found, though an error
// while reading came between.
func TestSumsWrong(t *testing.T) {
	e := held(t)
	pool := buffers.New(poolSize)
	p := &Placement{Order: Order{Entry: e, Sums: NewSums(e, NewLot(pool, 2), false)}, buf: make([]byte, content.PieceSize)}
	piece := firstOfLarge(t, p)
	b := run(t, p, pool, e.Layout().RunOf(piece))
	b[rand.IntN(len(b))] ^= 1
	if p.Sums.Offer(e.Layout().RunOf(piece), b) {
		t.Fatal("the first piece was parked")
	}
	file := e.Layout().PieceFile(piece)
	r, err := e.OpenFile(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	broken := errors.New("disk broke")
	_, err = p.Sums.check(file, func(int) ([]byte, error) { return nil, broken })
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the disk", err)
	}
	if _, err := p.Sums.check(file, p.reader(file, r)); err == nil || !strings.Contains(err.Error(), "published wrongly") {
		t.Errorf("error %v for a changed byte", err)
	}
}

// TestSHA1s: the SHA-1 of every file is taken of its bytes, in the manifest's order, whether they
// were seen as they came or not, and whatever the manifest says.
func TestSHA1s(t *testing.T) {
	e := held(t)
	for _, with := range []bool{true, false} {
		pool := buffers.New(poolSize)
		p, err := new(Stages).Begin(Order{Entry: e, Sums: NewSums(e, NewLot(pool, 2), with)})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for r := 1; r < e.Layout().Runs(); r++ {
			if b := run(t, p, pool, r); !p.Sums.Offer(r, b) {
				pool.Put(b)
			}
		}
		var want []content.SHA1
		for i, f := range e.Manifest().Files {
			if err := p.File(i, now); err != nil {
				t.Fatal(err)
			}
			if with {
				want = append(want, sha1.Sum(tree[f.Name]))
			}
		}
		if got := p.SHA1s(); !slices.Equal(got, want) {
			t.Errorf("SHA-1s %v, want %v", got, want)
		}
	}
}
