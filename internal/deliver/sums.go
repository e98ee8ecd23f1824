package deliver

import (
	"crypto/sha1"
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
// The SHA-256 of a file of one piece is that of its piece. SHA-1s are taken of all files, in the
// same pass, where somebody has an expectation of them: no piece says anything of those.
//
// A file's sum follows from its pieces' hashes, so that it stays true however often pieces
// are fetched again. Sums may be used by many goroutines.
type Sums struct {
	entry *store.Entry
	lot   *Lot
	sha1  bool // SHA-1s are taken too

	mu    sync.Mutex // guards the following
	moved *sync.Cond // a file's sum grew, or its busy ended
	files map[int]*sum
	ones  map[int]content.SHA1 // of files of one piece, where SHA-1s are taken
	shut  bool
}

// sum is one file's.
type sum struct {
	next   int            // piece of the file that is hashed next
	busy   bool           // a goroutine has hash, without holding mu
	hash   hash.Hash      // of the pieces before next
	sha1   hash.Hash      // likewise; nil where SHA-1s are not taken
	parked map[int][]byte // pieces after next, in buffers of the lot's pool
	whole  wholes         // once next is behind the last piece
}

// wholes are the hashes of a whole file.
type wholes struct {
	sha256 content.Digest
	sha1   content.SHA1 // zero where it is not taken
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

// NewSums returns the sums of e, which must be in use while they are; sha1 says whether SHA-1s
// are taken too.
func NewSums(e *store.Entry, lot *Lot, sha1 bool) *Sums {
	s := &Sums{entry: e, lot: lot, sha1: sha1, files: map[int]*sum{}, ones: map[int]content.SHA1{}}
	s.moved = sync.NewCond(&s.mu)
	return s
}

// SHA1 reports whether SHA-1s are taken too.
func (s *Sums) SHA1() bool { return s.sha1 }

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
	if s.sha1 {
		s.offerOnes(run, b)
	}
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

// offerOnes takes the SHA-1s of the files of one piece in a run.
func (s *Sums) offerOnes(run int, b []byte) {
	l := s.entry.Layout()
	r := l.Run(run)
	for p := r.First; p < r.First+r.Count; p++ {
		n := l.PieceLen(p)
		if file := l.PieceFile(p); l.FileSize(file) == int64(n) {
			s.one(file, func(int) ([]byte, error) { return b[:n], nil })
		}
		b = b[n:]
	}
}

// one returns the SHA-1 of a file of one piece, which is read where it is not known.
func (s *Sums) one(file int, read func(piece int) ([]byte, error)) (content.SHA1, error) {
	s.mu.Lock()
	sum, ok := s.ones[file]
	s.mu.Unlock()
	if ok {
		return sum, nil
	}
	b, err := read(0)
	if err != nil {
		return content.SHA1{}, err
	}
	sum = sha1.Sum(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ones[file] = sum
	return sum, nil
}

func (s *Sums) file(i int) *sum {
	f := s.files[i]
	if f == nil {
		f = &sum{hash: sha256.New(), parked: map[int][]byte{}}
		if s.sha1 {
			f.sha1 = sha1.New()
		}
		s.files[i] = f
	}
	return f
}

// add hashes the next piece of a file that the caller has made busy. The caller holds mu,
// which is let go meanwhile.
func (s *Sums) add(f *sum, count int, b []byte) {
	s.mu.Unlock()
	f.hash.Write(b)
	if f.sha1 != nil {
		f.sha1.Write(b)
	}
	s.mu.Lock()
	s.moved.Broadcast()
	if f.next++; f.next < count {
		return
	}
	f.hash.Sum(f.whole.sha256[:0])
	if f.sha1 != nil {
		f.sha1.Sum(f.whole.sha1[:0])
	}
	f.hash, f.sha1 = nil, nil
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

// check compares the SHA-256 of a file, all of which is held, with the manifest, and returns its
// SHA-1, zero where that is not taken.
func (s *Sums) check(file int, read func(piece int) ([]byte, error)) (content.SHA1, error) {
	_, count := s.entry.Layout().FilePieces(file)
	switch {
	case count < 2 && !s.sha1: // the only piece's hash is the file's
		return content.SHA1{}, nil
	case count == 0:
		return sha1.Sum(nil), nil
	case count == 1:
		return s.one(file, read)
	}
	if err := s.reach(file, count, read); err != nil {
		return content.SHA1{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	whole := s.file(file).whole
	if f := &s.entry.Manifest().Files[file]; whole.sha256 != f.SHA256 {
		return content.SHA1{}, fmt.Errorf("deliver: the SHA-256 of %q is not what the manifest says, though its pieces fit the hash file: the content was published wrongly; publish it anew", f.Name)
	}
	return whole.sha1, nil
}
