package content

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Match says how far expected metadata speaks for all of a content.
type Match uint8

const (
	Exact  Match = iota // the manifest holds the expected files and no others
	Subset              // the manifest may hold more
)

// ParseMatch reads "exact" or "subset".
func ParseMatch(s string) (Match, error) {
	switch s {
	case "exact":
		return Exact, nil
	case "subset":
		return Subset, nil
	}
	return 0, fmt.Errorf("content: match %q is not known; use exact or subset", s)
}

// String returns "exact" or "subset".
func (m Match) String() string {
	if m == Subset {
		return "subset"
	}
	return "exact"
}

// Fit is what a comparison of a manifest with expected metadata came to.
type Fit uint8

const (
	FitUnknown Fit = 0x00 // there is nothing to compare with
	Fits       Fit = 0x01
	Differs    Fit = 0x02 // in at least one file
	NeedsBytes Fit = 0x03 // no file differs, but the manifest lacks a hash: the files' bytes decide
)

// String returns the word that people see.
func (f Fit) String() string {
	switch f {
	case Fits:
		return "fits"
	case Differs:
		return "differs"
	case NeedsBytes:
		return "needs the bytes"
	}
	return "unknown"
}

// DifferenceKind says in what a file differs.
type DifferenceKind uint8

const (
	Missing  DifferenceKind = 0x01 // expected, not in the manifest
	Extra    DifferenceKind = 0x02 // in the manifest, not expected
	Changed  DifferenceKind = 0x03 // in both, with other hashes
	Unhashed DifferenceKind = 0x04 // in both; the manifest has no hash by the algorithm
)

// String returns the word that people see.
func (k DifferenceKind) String() string {
	switch k {
	case Missing:
		return "missing"
	case Extra:
		return "extra"
	case Changed:
		return "changed"
	case Unhashed:
		return "unhashed"
	}
	return fmt.Sprintf("difference %d", uint8(k))
}

// Difference is one file that is not as expected.
type Difference struct {
	Kind      DifferenceKind
	Name      string    // as the manifest spells it, of a missing file as the expectation does
	Algorithm Algorithm // of the hashes
	Want      []byte    // nil for an extra file
	Got       []byte    // nil for a missing or unhashed one
}

// Diff lists the files that are not as expected, in byte order of their folded names.
type Diff []Difference

// Fit sums d up.
func (d Diff) Fit() Fit {
	fit := Fits
	for i := range d {
		if d[i].Kind != Unhashed {
			return Differs
		}
		fit = NeedsBytes
	}
	return fit
}

// Summary says d in one line that names at most n files.
func (d Diff) Summary(n int) string {
	if len(d) == 0 {
		return "no file differs"
	}
	var counts [Unhashed + 1]int
	for i := range d {
		counts[d[i].Kind]++
	}
	var words []string
	for k := Missing; k <= Unhashed; k++ {
		if counts[k] > 0 {
			words = append(words, fmt.Sprintf("%d %s", counts[k], k))
		}
	}
	var b strings.Builder
	b.WriteString(strings.Join(words, ", "))
	for i := range min(n, len(d)) {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%s %q", sep, d[i].Kind, clip(d[i].Name))
	}
	if more := len(d) - n; n > 0 && more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String()
}

// Compare compares the name and hash of every expected file with m. Hashes alone decide
// whether a file is the same: a size beside them could only be wrong. An empty want is
// ErrUnknownMetadata; what MetadataHash refuses is an error here too.
//
// A manifest made where no SHA-1 was taken has zeros there. Against it expected SHA-1s are
// Unhashed, never Changed: fill in the SHA-1s of the bytes held, and compare again.
func Compare(m *Manifest, want []MetadataEntry, match Match) (Diff, error) {
	if len(want) == 0 {
		return nil, ErrUnknownMetadata
	}
	folded, err := foldEntries(want)
	if err != nil {
		return nil, err
	}
	expected := make(map[string]int, len(folded)) // folded name → index into want
	for i := range folded {
		expected[folded[i].Name] = i
	}
	var d Diff
	for i := range m.Files {
		name := FoldName(m.Files[i].Name)
		at, ok := expected[name]
		switch {
		case ok:
			delete(expected, name)
			d = appendChange(d, &m.Files[i], folded[at])
		case match == Exact:
			f := &m.Files[i]
			d = append(d, Difference{Kind: Extra, Name: f.Name, Algorithm: SHA256Algorithm, Got: f.SHA256[:]})
		}
	}
	for _, at := range expected {
		w := want[at]
		d = append(d, Difference{Kind: Missing, Name: w.Name, Algorithm: w.Algorithm, Want: w.Digest})
	}
	d.sort()
	return d, nil
}

// appendChange adds how f differs from what is expected of it, if it does.
func appendChange(d Diff, f *File, want MetadataEntry) Diff {
	got := f.digest(want.Algorithm)
	switch {
	case got == nil:
		return append(d, Difference{Kind: Unhashed, Name: f.Name, Algorithm: want.Algorithm, Want: want.Digest})
	case !bytes.Equal(got, want.Digest):
		return append(d, Difference{Kind: Changed, Name: f.Name, Algorithm: want.Algorithm, Want: want.Digest, Got: got})
	}
	return d
}

// digest returns f's hash by alg, nil where it has none.
func (f *File) digest(alg Algorithm) []byte {
	switch {
	case alg == SHA256Algorithm:
		return f.SHA256[:]
	case alg == SHA1Algorithm && f.SHA1 != SHA1{}:
		return f.SHA1[:]
	}
	return nil
}

func (d Diff) sort() {
	slices.SortFunc(d, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(FoldName(a.Name), FoldName(b.Name)), cmp.Compare(a.Name, b.Name))
	})
}

// CompareManifests compares got with want: names to the letter, all hashes that both have,
// sizes and executable marks. Contents and versions may differ.
func CompareManifests(want, got *Manifest) Diff {
	var d Diff
	for i, j := 0, 0; i < len(want.Files) || j < len(got.Files); {
		switch {
		case j == len(got.Files) || i < len(want.Files) && want.Files[i].Name < got.Files[j].Name:
			f := &want.Files[i]
			d = append(d, Difference{Kind: Missing, Name: f.Name, Algorithm: SHA256Algorithm, Want: f.SHA256[:]})
			i++
		case i == len(want.Files) || got.Files[j].Name < want.Files[i].Name:
			f := &got.Files[j]
			d = append(d, Difference{Kind: Extra, Name: f.Name, Algorithm: SHA256Algorithm, Got: f.SHA256[:]})
			j++
		default:
			w, g := &want.Files[i], &got.Files[j]
			if !w.same(g) {
				d = append(d, Difference{Kind: Changed, Name: w.Name, Algorithm: SHA256Algorithm, Want: w.SHA256[:], Got: g.SHA256[:]})
			}
			i, j = i+1, j+1
		}
	}
	d.sort()
	return d
}

// same reports whether f and g, of one name, are one file.
func (f *File) same(g *File) bool {
	sha1 := f.SHA1 == g.SHA1 || f.digest(SHA1Algorithm) == nil || g.digest(SHA1Algorithm) == nil
	return sha1 && f.SHA256 == g.SHA256 && f.Size == g.Size && f.Executable == g.Executable
}

// ErrNoHash is the MetadataHash of a manifest that lacks the algorithm's hashes: the files'
// bytes decide.
var ErrNoHash = errors.New("content: the manifest has no hashes by this algorithm")

// MetadataHash returns the MetadataHash of m by alg. No files is ErrUnknownMetadata, and a
// file without such a hash ErrNoHash.
func (m *Manifest) MetadataHash(alg Algorithm) (Digest, error) {
	for i := range m.Files {
		if m.Files[i].digest(alg) == nil {
			return Digest{}, fmt.Errorf("%w: file %q, %s", ErrNoHash, clip(m.Files[i].Name), alg)
		}
	}
	return MetadataHash(m.MetadataEntries(alg))
}

// MetadataHashes returns both MetadataHashes of m: zero where it has no files, or one of them
// has no hash by the algorithm.
func (m *Manifest) MetadataHashes() (sha1, sha256 Digest, err error) {
	known := func(alg Algorithm) (Digest, error) {
		d, err := m.MetadataHash(alg)
		if errors.Is(err, ErrNoHash) || errors.Is(err, ErrUnknownMetadata) {
			return Digest{}, nil
		}
		return d, err
	}
	if sha1, err = known(SHA1Algorithm); err != nil {
		return Digest{}, Digest{}, err
	}
	if sha256, err = known(SHA256Algorithm); err != nil {
		return Digest{}, Digest{}, err
	}
	return sha1, sha256, nil
}
