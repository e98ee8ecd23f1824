package deliver

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"sync"

	"freshet/internal/buffers"
	"freshet/internal/content"
	"freshet/internal/store"
)

// Sums takes the whole-file hashes of an entry over the verified prefix of each file as it
// grows (design section 3, 6), from the buffers that pieces arrived in: reading them back
// would cost more than half of the hashing again. A piece that comes a little before its turn
// is parked; what came much too early, or in an earlier run of the agent, is read back.
//
// A file's sum follows from its pieces' hashes, so that it stays true however often pieces
// are fetched again. Sums may be used by many goroutines.
type Sums struct {
	entry *store.Entry
	lot   *Lot

	mu    sync.Mutex // guards the following
	moved *sync.Cond // a file's sum grew, or its busy ended
	files map[int]*sum
	shut  bool
}

// sum is one file's.
type sum struct {
	next   int            // piece of the file that is hashed next
	busy   bool           // a goroutine has hash, without holding mu
	hash   hash.Hash      // of the pieces before next
	parked map[int][]byte // pieces after next, in buffers of the lot's pool
	whole  content.Digest // once next is behind the last piece
}

// Lot is where the pieces of all contents of an agent are parked.
type Lot struct {
	pool   *buffers.Pool
	places chan struct{}
}

const (
	parkAhead = 8  // pieces: one that is further ahead is not parked
	lag       = 16 // pieces by which the sum may stay behind what is held: it is being caught up from the buffers
)

// NewLot returns room for n buffers of pool, which are missing there while they are parked.
func NewLot(pool *buffers.Pool, n int) *Lot {
	return &Lot{pool: pool, places: make(chan struct{}, n)}
}

func (l *Lot) park() bool {
	select {
	case l.places <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l *Lot) leave(b []byte) {
	<-l.places
	l.pool.Put(b)
}

// NewSums returns the sums of e, which must be in use while they are.
func NewSums(e *store.Entry, lot *Lot) *Sums {
	s := &Sums{entry: e, lot: lot, files: map[int]*sum{}}
	s.moved = sync.NewCond(&s.mu)
	return s
}

// Close gives back what is parked.
func (s *Sums) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut = true
	for _, f := range s.files {
		for n, b := range f.parked {
			delete(f.parked, n)
			s.lot.leave(b)
		}
	}
}

// Offer shows a run that was verified and written, in a buffer of the lot's pool. When kept
// is true the buffer is the lot's from then on, else it is still the caller's. Where pieces
// come faster than one goroutine hashes them, Offer waits: once the sum had fallen behind,
// all the rest would have to be read back.
func (s *Sums) Offer(run int, b []byte) (kept bool) {
	// Full pieces are runs of their own: only the first piece of a run may belong to a file
	// of several pieces.
	l := s.entry.Layout()
	piece := l.Run(run).First
	file := l.PieceFile(piece)
	first, count := l.FilePieces(file)
	if count < 2 {
		return false
	}
	n := piece - first
	b = b[:l.PieceLen(piece)]
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.file(file)
	for f.busy || n != f.next {
		if s.shut || n < f.next || f.parked[n] != nil {
			return false
		}
		if n <= f.next+parkAhead && s.lot.park() {
			f.parked[n] = b
			return true
		}
		if !f.busy {
			return false
		}
		s.moved.Wait()
	}
	if s.shut {
		return false
	}
	f.busy = true
	s.add(f, count, b)
	s.addParked(f, count)
	s.rest(f)
	return false
}

func (s *Sums) file(i int) *sum {
	f := s.files[i]
	if f == nil {
		f = &sum{hash: sha256.New(), parked: map[int][]byte{}}
		s.files[i] = f
	}
	return f
}

// add hashes the next piece of a file that the caller has made busy. The caller holds mu,
// which is let go meanwhile.
func (s *Sums) add(f *sum, count int, b []byte) {
	s.mu.Unlock()
	f.hash.Write(b)
	s.mu.Lock()
	s.moved.Broadcast()
	if f.next++; f.next == count {
		f.hash.Sum(f.whole[:0])
		f.hash = nil
	}
}

// addParked hashes the parked pieces whose turn it is.
func (s *Sums) addParked(f *sum, count int) {
	for {
		b := f.parked[f.next]
		if b == nil {
			return
		}
		delete(f.parked, f.next)
		s.add(f, count, b)
		s.lot.leave(b)
	}
}

func (s *Sums) rest(f *sum) {
	f.busy = false
	s.moved.Broadcast()
}

// reach lets a file's sum cover its first n pieces at least, which are held. What was not
// hashed from a buffer is read.
func (s *Sums) reach(file, n int, read func(piece int) ([]byte, error)) error {
	_, count := s.entry.Layout().FilePieces(file)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.file(file)
	for f.busy && f.next < n {
		s.moved.Wait()
	}
	if f.next >= n {
		return nil
	}
	f.busy = true
	defer s.rest(f)
	for f.next < n {
		if s.addParked(f, count); f.next >= n {
			return nil
		}
		s.mu.Unlock()
		b, err := read(f.next)
		s.mu.Lock()
		if err != nil {
			return err
		}
		s.add(f, count, b)
	}
	s.addParked(f, count)
	return nil
}

// check compares the sum of a file, all of which is held, with the manifest.
func (s *Sums) check(file int, read func(piece int) ([]byte, error)) error {
	_, count := s.entry.Layout().FilePieces(file)
	if err := s.reach(file, count, read); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := &s.entry.Manifest().Files[file]; s.file(file).whole != f.SHA256 {
		return fmt.Errorf("deliver: the SHA-256 of %q is not what the manifest says, though its pieces fit the hash file: the content was published wrongly; publish it anew", f.Name)
	}
	return nil
}
