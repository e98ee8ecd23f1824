package peer

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"freshet/internal/content"
	"freshet/internal/identity"
)

// onDisk has the runs of a sample as spans of files. Runs of small files, and of the end of a
// large one with small ones after it, lie one after another in a file, behind other bytes;
// large files lie in one each.
type onDisk struct {
	t     *testing.T
	s     *sample
	pack  *os.File
	off   map[int]int64 // of run r in pack
	own   map[int]*os.File
	begin map[int]int64 // of the file of run r in the concatenation

	split       bool // there are no spans
	spans, lent atomic.Int64
	reads       atomic.Int64
}

// Read implements Reader.
func (d *onDisk) Read(run, off, n int, b []byte) error {
	d.reads.Add(1)
	return d.s.Read(run, off, n, b)
}

// Span implements spans.
func (d *onDisk) Span(run int) (*os.File, int64, func(), bool) {
	if d.split {
		return nil, 0, nil, false
	}
	d.spans.Add(1)
	d.lent.Add(1)
	release := func() { d.lent.Add(-1) }
	if off, ok := d.off[run]; ok {
		return d.pack, off, release, true
	}
	return d.own[run], d.s.layout.Run(run).Offset - d.begin[run], release, true
}

// newOnDisk lays out small files before, between and after large ones.
func newOnDisk(t *testing.T) *onDisk {
	t.Helper()
	sizes := []int64{100_001, 1, 300_000, 0, 2*content.PieceSize + 12_345, 50_000, 60_000, content.PieceSize, 9}
	files := make([]content.File, len(sizes))
	for i, n := range sizes {
		files[i] = content.File{Name: string(rune('a' + i)), Size: n}
	}
	l := content.NewLayout(files)
	b := make([]byte, l.Size())
	rand.NewChaCha8([32]byte{2}).Read(b)
	d := &onDisk{
		t: t, s: &sample{layout: l, bytes: b, hoh: content.DigestOf(b)},
		off: map[int]int64{}, own: map[int]*os.File{}, begin: map[int]int64{},
	}
	pack := make([]byte, 777)
	several, inside := 0, 0
	for run := range l.Runs() {
		r := l.Run(run)
		first, last := l.PieceFile(r.First), l.PieceFile(r.First+r.Count-1)
		if first != last || sizes[first] < content.PieceSize {
			d.off[run] = int64(len(pack))
			pack = append(pack, d.s.run(run)...)
			several += last - first
			continue
		}
		at := l.FileOffset(first)
		if r.Offset > at {
			inside++
		}
		d.own[run], d.begin[run] = d.file(files[first].Name, b[at:at+sizes[first]]), at
	}
	if several < 2 || inside < 1 {
		t.Fatalf("%d steps from file to file inside runs and %d runs that begin in mid-file: the sample shows nothing", several, inside)
	}
	d.pack = d.file("pack", pack)
	return d
}

func (d *onDisk) file(name string, b []byte) *os.File {
	d.t.Helper()
	name = filepath.Join(d.t.TempDir(), name)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		d.t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { f.Close() })
	return f
}

// tcpPair opens a connection over loopback TCP from a taker to a giver that reads from d.
func tcpPair(t *testing.T, ca *identity.CA, d *onDisk) (taker, giver *side) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ra, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	rb, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	taker, giver = newSide(t, newEndpoint(t, ca, 1, 2), d.s), newSide(t, newEndpoint(t, ca, 2, 2), d.s)
	giver.from = d
	a, b := openOver(t, taker.e, giver.e, d.s.hoh, [2]net.Conn{ra, rb})
	taker.start(t.Context(), a)
	giver.start(t.Context(), b)
	return taker, giver
}

// TestSendfile: over plain TCP runs leave by sendfile, and every byte is the source's: runs of
// several small files, and runs that begin in mid-file, asked for whole and in blocks.
// Where there is no span, and over TLS, they are read.
func TestSendfile(t *testing.T) {
	ca := newCA(t)
	for name, test := range map[string]struct {
		ca    *identity.CA
		split bool
		block int
		taken bool // sendfile
	}{
		"whole runs": {nil, false, content.PieceSize, true},
		"blocks":     {nil, false, block64, true},
		"odd blocks": {nil, false, 99_991, true},
		"no span":    {nil, true, block64, false},
		"tls":        {ca, false, content.PieceSize, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newOnDisk(t)
			d.split = test.split
			taker, giver := tcpPair(t, test.ca, d)
			want := d.s.layout.Runs()
			for run := range want {
				taker.conn.Ask(d.s.layout, run, test.block)
			}
			var got []int // side.Run compares their bytes
			for range want {
				select {
				case run := <-taker.runs:
					got = append(got, run)
				case <-taker.ended:
					t.Fatalf("ended with %v after runs %d", taker.err, got)
				}
			}
			slices.Sort(got)
			if got = slices.Compact(got); len(got) != want {
				t.Errorf("runs %d came, want %d of them", got, want)
			}
			stop(t, taker, giver)
			if spans, reads := d.spans.Load() >= int64(want), d.reads.Load() > 0; spans != test.taken || reads == test.taken {
				t.Errorf("%d spans were lent and %d blocks read; want sendfile %t", d.spans.Load(), d.reads.Load(), test.taken)
			}
			if n := d.lent.Load(); n != 0 {
				t.Errorf("%d spans are lent still", n)
			}
			if _, n := giver.did(); n != int(d.s.layout.Size()) {
				t.Errorf("%d bytes are counted as sent, want %d", n, d.s.layout.Size())
			}
		})
	}
}

// TestSendfileShort: a file that has lost bytes ends the connection: the block's length is told
// already.
func TestSendfileShort(t *testing.T) {
	d := newOnDisk(t)
	if err := os.Truncate(d.pack.Name(), d.off[0]+10); err != nil {
		t.Fatal(err)
	}
	taker, giver := tcpPair(t, nil, d)
	taker.conn.Ask(d.s.layout, 0, content.PieceSize)
	select {
	case <-giver.ended:
	case <-taker.runs:
		t.Error("the run came: sendfile is not taken")
	}
	if got := giver.failed(); len(got) != 1 || !errors.Is(got[0], syscall.EIO) {
		t.Errorf("the send ended with %v, want %v", got, syscall.EIO)
	}
	stop(t, taker, giver)
	if n := d.lent.Load(); n != 0 {
		t.Errorf("%d spans are lent still", n)
	}
}
