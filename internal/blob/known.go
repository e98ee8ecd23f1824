package blob

import (
	"cmp"
	"fmt"
	"slices"

	"freshet/internal/content"
)

// Hashed is what HashTree made of a directory. Given to it again, files that still have their
// stamps are not read, but for those without a SHA-1.
type Hashed struct {
	Manifest *content.Manifest
	HashFile *content.HashFile
	Stamps   []Stamp // in manifest order
}

// knownFiles finds in a Hashed what need not be read.
type knownFiles struct {
	Hashed
	first []int // piece that each file begins with
}

// indexed returns h ready to look into; nil for nil.
func (h *Hashed) indexed() (*knownFiles, error) {
	if h == nil {
		return nil, nil
	}
	k := &knownFiles{Hashed: *h, first: make([]int, len(h.Manifest.Files))}
	n := 0
	for i := range k.first {
		k.first[i] = n
		n += pieces(h.Manifest.Files[i].Size)
	}
	if n != len(h.HashFile.Pieces) || len(h.Stamps) != len(k.first) {
		return nil, fmt.Errorf("what was hashed before has %d piece hashes, want %d, and %d stamps, want %d", len(h.HashFile.Pieces), n, len(h.Stamps), len(k.first))
	}
	return k, nil
}

func pieces(size int64) int { return int((size + content.PieceSize - 1) / content.PieceSize) }

// find returns the file of this name and stamp with its piece hashes.
func (k *knownFiles) find(name string, stamp Stamp) (content.File, []content.Digest, bool) {
	if k == nil {
		return content.File{}, nil, false
	}
	files := k.Manifest.Files
	i, ok := slices.BinarySearchFunc(files, name, func(f content.File, name string) int { return cmp.Compare(f.Name, name) })
	if !ok || k.Stamps[i] != stamp || files[i].SHA1 == (content.SHA1{}) {
		return content.File{}, nil, false
	}
	at := k.first[i]
	return files[i], k.HashFile.Pieces[at : at+pieces(files[i].Size)], true
}
