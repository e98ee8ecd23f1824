package content

import (
	"crypto/sha1"
	"crypto/sha256"
	"hash"
)

// FileHasher takes all hashes of a file in one read: SHA-1 and SHA-256 of the whole, SHA-256
// of each piece. It has one owner at a time.
type FileHasher struct {
	sha1   hash.Hash
	whole  hash.Hash
	piece  hash.Hash // of size mod PieceSize bytes
	pieces []Digest  // len(pieces) = size / PieceSize
	size   int64     // bytes written
}

// NewFileHasher returns a hasher for one file after the other.
func NewFileHasher() *FileHasher {
	return &FileHasher{sha1: sha1.New(), whole: sha256.New(), piece: sha256.New()}
}

// Write takes the next bytes of the file. It returns no error.
func (h *FileHasher) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part := rest[:min(len(rest), PieceSize-int(h.size%PieceSize))]
		h.sha1.Write(part)
		h.whole.Write(part)
		h.piece.Write(part)
		h.size += int64(len(part))
		if h.size%PieceSize == 0 {
			h.endPiece()
		}
		rest = rest[len(part):]
	}
	return len(p), nil
}

func (h *FileHasher) endPiece() {
	var d Digest
	h.piece.Sum(d[:0])
	h.piece.Reset()
	h.pieces = append(h.pieces, d)
}

// Sum ends the file: it returns its entry in a manifest and its piece hashes, which are the
// caller's, and begins the next one. The name is not checked; [BuildManifest] does.
func (h *FileHasher) Sum(name string, executable bool) (File, []Digest) {
	if h.size%PieceSize != 0 {
		h.endPiece()
	}
	f := File{Name: name, Size: h.size, Executable: executable}
	h.sha1.Sum(f.SHA1[:0])
	h.whole.Sum(f.SHA256[:0])
	pieces := h.pieces
	h.sha1.Reset()
	h.whole.Reset()
	h.pieces, h.size = nil, 0
	return f, pieces
}
