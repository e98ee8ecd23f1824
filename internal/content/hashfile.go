package content

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// pieceLen is the length of a piece hash in a hash file, with quotes and comma.
const pieceLen = base64Len + len(`"",`)

// MaxHashFile is the length of the longest hash file as JSON, in bytes, or a little more.
const MaxHashFile = MaxPieces*pieceLen + 256

// HashOfHashes returns the SHA-256 over the raw piece hashes, one after the other.
func HashOfHashes(pieces []Digest) Digest {
	h := sha256.New()
	for i := range pieces {
		h.Write(pieces[i][:])
	}
	return Digest(h.Sum(nil))
}

// AppendHashFile appends the JSON of h.
func AppendHashFile(dst []byte, h *HashFile) []byte {
	dst = slices.Grow(dst, 256+len(h.Pieces)*pieceLen)
	dst = append(dst, `{"MajorVersion":1,"MinorVersion":0,"HashOfHashes":"`...)
	dst = appendBase64(dst, &h.HashOfHashes)
	dst = append(dst, `","ContentLength":`...)
	dst = strconv.AppendInt(dst, h.ContentLength, 10)
	dst = append(dst, `,"PieceSize":`...)
	dst = strconv.AppendInt(dst, int64(h.PieceSize), 10)
	dst = append(dst, `,"Pieces":[`...)
	for i := range h.Pieces {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = appendBase64(dst, &h.Pieces[i])
		dst = append(dst, '"')
	}
	return append(dst, `]}`...)
}

// ParseHashFile reads the bytes that AppendHashFile writes; anything else is an error that
// names the byte and what was expected. HashOfHashes is verified. b is not kept.
func ParseHashFile(b []byte) (*HashFile, error) {
	if len(b) > MaxHashFile {
		return nil, fmt.Errorf("content: parse hash file: it has %d bytes, more than %d", len(b), MaxHashFile)
	}
	s := &scanner{what: "hash file", b: b}
	h := &HashFile{}
	s.lit(`{"MajorVersion":`)
	s.version("MajorVersion", 1)
	s.lit(`,"MinorVersion":`)
	s.version("MinorVersion", 0)
	s.lit(`,"HashOfHashes":"`)
	h.HashOfHashes = s.digest()
	s.lit(`","ContentLength":`)
	h.ContentLength = s.num(MaxSize)
	s.lit(`,"PieceSize":`)
	h.PieceSize = int(s.num(math.MaxInt32))
	s.lit(`,"Pieces":[`)
	s.pieces(h)
	s.lit(`]}`)
	s.end()
	if s.err != nil {
		return nil, s.err
	}
	if err := h.verify(); err != nil {
		return nil, err
	}
	return h, nil
}

// pieces takes the piece hashes. Their number follows from the bytes left and is checked
// before anything is allocated.
func (s *scanner) pieces(h *HashFile) {
	n := (len(s.b) - s.at - len(`]}`) + 1) / pieceLen
	if err := h.checkCount(int64(n)); err != nil {
		s.fail(s.at, "%v", err)
	}
	if s.err != nil || n == 0 {
		return
	}
	h.Pieces = make([]Digest, 0, n)
	for i := 0; i < n && s.err == nil; i++ {
		if i > 0 {
			s.lit(",")
		}
		s.lit(`"`)
		h.Pieces = append(h.Pieces, s.digest())
		s.lit(`"`)
	}
}

// checkCount reports whether n pieces can make up the length: none is empty, each file adds
// at most one that is short.
func (h *HashFile) checkCount(n int64) error {
	if h.PieceSize < 1 {
		return errors.New("want a piece size from 1")
	}
	size := int64(h.PieceSize)
	least := (h.ContentLength + size - 1) / size
	most := min(h.ContentLength, h.ContentLength/size+MaxFiles, MaxPieces)
	if n < least || n > most {
		return fmt.Errorf("%d pieces of %d bytes cannot hold %d bytes", n, h.PieceSize, h.ContentLength)
	}
	return nil
}

// verify checks HashOfHashes against the pieces.
func (h *HashFile) verify() error {
	if got := HashOfHashes(h.Pieces); got != h.HashOfHashes {
		return fmt.Errorf("content: hash file names HashOfHashes %s, its pieces give %s", h.HashOfHashes.Short(), got.Short())
	}
	return nil
}

// AppendHashFileRaw appends the piece hashes of h, 32 bytes each.
func AppendHashFileRaw(dst []byte, h *HashFile) []byte {
	dst = slices.Grow(dst, len(h.Pieces)*sha256.Size)
	for i := range h.Pieces {
		dst = append(dst, h.Pieces[i][:]...)
	}
	return dst
}

// ParseHashFileRaw reads the piece hashes of m, as many as m has pieces, and verifies them
// against m's HashOfHashes. b is not kept.
func ParseHashFileRaw(b []byte, m *Manifest) (*HashFile, error) {
	n := m.Pieces()
	if len(b) != n*sha256.Size {
		return nil, fmt.Errorf("content: raw hash file of %s has %d bytes, want %d for %d pieces", m.Ref, len(b), n*sha256.Size, n)
	}
	h := &HashFile{HashOfHashes: m.HashOfHashes, ContentLength: m.Size, PieceSize: m.PieceSize}
	if n > 0 {
		h.Pieces = make([]Digest, n)
	}
	for i := range h.Pieces {
		h.Pieces[i] = Digest(b[i*sha256.Size:])
	}
	if err := h.verify(); err != nil {
		return nil, err
	}
	return h, nil
}

// Fits reports why h is not the hash file of m, whose layout is l, or nil. Besides piece
// size, length, number and HashOfHashes, a file of one piece must have one hash in both.
func (h *HashFile) Fits(m *Manifest, l *Layout) error {
	switch {
	case h.PieceSize != m.PieceSize:
		return fmt.Errorf("content: hash file has pieces of %d bytes, the manifest of %s %d", h.PieceSize, m.Ref, m.PieceSize)
	case h.ContentLength != m.Size || l.Size() != m.Size:
		return fmt.Errorf("content: hash file is of %d bytes, the manifest of %s %d", h.ContentLength, m.Ref, m.Size)
	case len(h.Pieces) != l.Pieces():
		return fmt.Errorf("content: hash file has %d pieces, the manifest of %s %d", len(h.Pieces), m.Ref, l.Pieces())
	case h.HashOfHashes != m.HashOfHashes:
		return fmt.Errorf("content: hash file has HashOfHashes %s, the manifest of %s %s", h.HashOfHashes.Short(), m.Ref, m.HashOfHashes.Short())
	}
	for i := range m.Files {
		first, count := l.FilePieces(i)
		if err := checkPieces(&m.Files[i], h.Pieces[first:first+count]); err != nil {
			return fmt.Errorf("content: hash file of %s: %w", m.Ref, err)
		}
	}
	return nil
}
