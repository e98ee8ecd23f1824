package content

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Algorithm says how a file of expected metadata was hashed.
type Algorithm uint8

// The values are those of the MetadataHash encoding.
const (
	SHA1Algorithm   Algorithm = 0x01 // 20 bytes
	SHA256Algorithm Algorithm = 0x02 // 32 bytes
)

// ParseAlgorithm reads a HashAlgorithm as Configuration Manager spells it: SHA1, SHA256 or
// SHA-256.
func ParseAlgorithm(s string) (Algorithm, error) {
	switch s {
	case "SHA1":
		return SHA1Algorithm, nil
	case "SHA256", "SHA-256":
		return SHA256Algorithm, nil
	}
	return 0, fmt.Errorf("content: hash algorithm %q is not known; use SHA1 or SHA256", s)
}

// String returns SHA1 or SHA256.
func (a Algorithm) String() string {
	switch a {
	case SHA1Algorithm:
		return "SHA1"
	case SHA256Algorithm:
		return "SHA256"
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// Size returns the bytes of a digest, 0 for an unknown algorithm.
func (a Algorithm) Size() int {
	switch a {
	case SHA1Algorithm:
		return sha1.Size
	case SHA256Algorithm:
		return sha256.Size
	}
	return 0
}

// MetadataEntry is what a MetadataHash takes of one file.
type MetadataEntry struct {
	Algorithm Algorithm
	Digest    []byte // Algorithm.Size() bytes
	Name      string // as its source spells it; see FoldName
}

// ErrUnknownMetadata is the MetadataHash of no files: unknown, never equal to anything.
var ErrUnknownMetadata = errors.New("content: no files to take a MetadataHash of: the metadata is unknown")

// FoldName returns the spelling that a MetadataHash takes of a name: '\' as '/', a leading
// "./" dropped, ASCII letters in upper case and no others, so that all systems agree.
func FoldName(name string) string {
	name = strings.TrimPrefix(strings.ReplaceAll(name, `\`, "/"), "./")
	folded := []byte(name)
	for i, c := range folded {
		if c >= 'a' && c <= 'z' {
			folded[i] = c - 'a' + 'A'
		}
	}
	return string(folded)
}

// MetadataHash returns Nomad's hash over entries in any order (design section 4.3). An empty
// list is ErrUnknownMetadata; an unknown algorithm, a digest of another length, a name that
// could name no file and one that comes twice are errors.
func MetadataHash(entries []MetadataEntry) (Digest, error) {
	if len(entries) == 0 {
		return Digest{}, ErrUnknownMetadata
	}
	folded, err := foldEntries(entries)
	if err != nil {
		return Digest{}, err
	}
	slices.SortFunc(folded, func(a, b MetadataEntry) int {
		return cmp.Or(cmp.Compare(a.Algorithm, b.Algorithm), bytes.Compare(a.Digest, b.Digest), cmp.Compare(a.Name, b.Name))
	})
	h := sha256.New()
	buf := binary.BigEndian.AppendUint32([]byte("metadatahash-v1\x00"), uint32(len(folded)))
	for _, e := range folded {
		buf = append(buf, byte(e.Algorithm), byte(len(e.Digest)))
		buf = append(buf, e.Digest...)
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(e.Name)))
		buf = append(buf, e.Name...)
		h.Write(buf)
		buf = buf[:0]
	}
	return Digest(h.Sum(nil)), nil
}

// foldEntries returns entries with folded names, each checked.
func foldEntries(entries []MetadataEntry) ([]MetadataEntry, error) {
	folded := make([]MetadataEntry, len(entries))
	seen := make(map[string]bool, len(entries))
	for i, e := range entries {
		if e.Algorithm.Size() == 0 {
			return nil, fmt.Errorf("content: metadata of file %q: hash %s is not known", clip(e.Name), e.Algorithm)
		}
		if len(e.Digest) != e.Algorithm.Size() {
			return nil, fmt.Errorf("content: metadata of file %q: %s of %d bytes, want %d", clip(e.Name), e.Algorithm, len(e.Digest), e.Algorithm.Size())
		}
		e.Name = FoldName(e.Name)
		if err := checkName(e.Name, 0); err != nil {
			return nil, fmt.Errorf("content: metadata: %w", err)
		}
		if seen[e.Name] {
			return nil, fmt.Errorf("content: metadata names file %q twice", clip(entries[i].Name))
		}
		seen[e.Name] = true
		folded[i] = e
	}
	return folded, nil
}

// MetadataEntries returns what the MetadataHash of m by alg is taken of; none for an unknown
// algorithm. The digests are m's own bytes.
func (m *Manifest) MetadataEntries(alg Algorithm) []MetadataEntry {
	if alg.Size() == 0 {
		return nil
	}
	entries := make([]MetadataEntry, len(m.Files))
	for i := range m.Files {
		f := &m.Files[i]
		digest := f.SHA256[:]
		if alg == SHA1Algorithm {
			digest = f.SHA1[:]
		}
		entries[i] = MetadataEntry{Algorithm: alg, Digest: digest, Name: f.Name}
	}
	return entries
}
