package content

import (
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// fileOf is a file whose hashes are those of its text.
func fileOf(name, text string) File {
	return File{Name: name, Size: int64(len(text)), SHA1: sha1.Sum([]byte(text)), SHA256: sha256.Sum256([]byte(text))}
}

// entryOf is what metadata says of the same file.
func entryOf(alg Algorithm, name, text string) MetadataEntry {
	f := fileOf(name, text)
	return MetadataEntry{Algorithm: alg, Name: name, Digest: f.digest(alg)}
}

// lines writes d for comparisons.
func lines(d Diff) string {
	var out []string
	for _, one := range d {
		out = append(out, fmt.Sprintf("%s %s", one.Kind, one.Name))
	}
	return strings.Join(out, ", ")
}

func TestCompare(t *testing.T) {
	m := &Manifest{Files: []File{fileOf("B.cab", "b"), fileOf("dir/a.cab", "a"), fileOf("z", "z")}}
	a, b, z := entryOf(SHA1Algorithm, `.\DIR\A.CAB`, "a"), entryOf(SHA256Algorithm, "b.cab", "b"), entryOf(SHA1Algorithm, "z", "z")
	for name, c := range map[string]struct {
		want  []MetadataEntry
		match Match
		diff  string
		fit   Fit
	}{
		"equal, other spelling, both algorithms": {[]MetadataEntry{z, a, b}, Exact, "", Fits},
		"extra":                                  {[]MetadataEntry{a, b}, Exact, "extra z", Differs},
		"extra, subset":                          {[]MetadataEntry{a, b}, Subset, "", Fits},
		"missing":                                {[]MetadataEntry{a, b, z, entryOf(SHA1Algorithm, "C", "c")}, Exact, "missing C", Differs},
		"missing, subset":                        {[]MetadataEntry{entryOf(SHA1Algorithm, "C", "c")}, Subset, "missing C", Differs},
		"changed":                                {[]MetadataEntry{a, entryOf(SHA256Algorithm, "b.cab", "c"), z}, Exact, "changed B.cab", Differs},
		"changed, subset":                        {[]MetadataEntry{entryOf(SHA1Algorithm, "b.cab", "c")}, Subset, "changed B.cab", Differs},
		"all at once, sorted":                    {[]MetadataEntry{entryOf(SHA1Algorithm, "Z", "y"), entryOf(SHA1Algorithm, "c", "c"), b}, Exact, "missing c, extra dir/a.cab, changed z", Differs},
		"same bytes, another name":               {[]MetadataEntry{a, b, entryOf(SHA1Algorithm, "y", "z")}, Exact, "missing y, extra z", Differs},
		"other letters not folded":               {[]MetadataEntry{a, b, z, entryOf(SHA1Algorithm, "É", "e")}, Exact, "missing É", Differs},
	} {
		d, err := Compare(m, c.want, c.match)
		if err != nil || lines(d) != c.diff || d.Fit() != c.fit {
			t.Errorf("%s: %q, %v, %v, want %q, %v", name, lines(d), d.Fit(), err, c.diff, c.fit)
		}
	}
}

// TestCompareWithoutSHA1 compares a manifest that has SHA-256 alone: nothing is called changed
// by a hash that it does not have.
func TestCompareWithoutSHA1(t *testing.T) {
	m := &Manifest{Files: []File{fileOf("a", "a"), fileOf("b", "b")}}
	m.Files[0].SHA1, m.Files[1].SHA1 = SHA1{}, SHA1{}
	want := []MetadataEntry{entryOf(SHA1Algorithm, "a", "a"), entryOf(SHA1Algorithm, "b", "other")}
	d, err := Compare(m, want, Exact)
	if err != nil || lines(d) != "unhashed a, unhashed b" || d.Fit() != NeedsBytes {
		t.Errorf("%q, %v, %v, want both unhashed", lines(d), d.Fit(), err)
	}
	if _, err := m.MetadataHash(SHA1Algorithm); !errors.Is(err, ErrNoHash) {
		t.Errorf("MetadataHash by SHA-1 = %v, want ErrNoHash", err)
	}
	if _, err := m.MetadataHash(SHA256Algorithm); err != nil {
		t.Errorf("MetadataHash by SHA-256: %v", err)
	}
	d, err = Compare(m, want[:1], Exact)
	if err != nil || d.Fit() != Differs {
		t.Errorf("%q, %v, %v: an extra file differs whatever its bytes are", lines(d), d.Fit(), err)
	}
	// The bytes were read.
	m.Files[0].SHA1, m.Files[1].SHA1 = fileOf("a", "a").SHA1, fileOf("b", "b").SHA1
	if d, err = Compare(m, want, Exact); err != nil || lines(d) != "changed b" {
		t.Errorf("%q, %v, want b changed", lines(d), err)
	}
}

func TestCompareRefuses(t *testing.T) {
	m := &Manifest{Files: []File{fileOf("a", "a")}}
	a := entryOf(SHA1Algorithm, "a", "a")
	if _, err := Compare(m, nil, Subset); !errors.Is(err, ErrUnknownMetadata) {
		t.Errorf("empty metadata: %v, want ErrUnknownMetadata: it is unknown, never equal", err)
	}
	for name, c := range map[string]struct {
		want []MetadataEntry
		err  string
	}{
		"twice":         {[]MetadataEntry{a, {SHA1Algorithm, a.Digest, `.\A`}}, "twice"},
		"algorithm":     {[]MetadataEntry{{3, a.Digest, "a"}}, "is not known"},
		"digest length": {[]MetadataEntry{{SHA256Algorithm, a.Digest, "a"}}, "20 bytes, want 32"},
		"name":          {[]MetadataEntry{{SHA1Algorithm, a.Digest, "../a"}}, ".."},
	} {
		if _, err := Compare(m, c.want, Exact); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.err)
		}
	}
}

func TestCompareManifests(t *testing.T) {
	want := &Manifest{Files: []File{fileOf("a", "a"), fileOf("b", "b"), fileOf("c", "c"), fileOf("d", "d"), fileOf("e", "e")}}
	got := &Manifest{Files: []File{fileOf("B", "b"), fileOf("a", "a"), fileOf("c", "other"), fileOf("d", "d"), fileOf("e", "e")}}
	got.Files[3].Executable = true
	got.Files[4].SHA1 = SHA1{}
	if d := CompareManifests(want, got); lines(d) != "extra B, missing b, changed c, changed d" {
		t.Errorf("%q", lines(d))
	}
	got.Files[4].SHA1 = SHA1{1}
	if d := CompareManifests(want, got); !strings.HasSuffix(lines(d), ", changed e") {
		t.Errorf("%q: another SHA-1 is another file", lines(d))
	}
	if d := CompareManifests(want, want); len(d) != 0 || d.Fit() != Fits {
		t.Errorf("a manifest differs from itself: %q", lines(d))
	}
}

func TestSummary(t *testing.T) {
	d := Diff{{Kind: Missing, Name: "a"}, {Kind: Changed, Name: strings.Repeat("x", 300)}, {Kind: Missing, Name: "\n"}}
	for n, want := range map[int]string{
		0: "2 missing, 1 changed",
		1: `2 missing, 1 changed: missing "a" and 2 more`,
		9: `2 missing, 1 changed: missing "a", changed "` + strings.Repeat("x", MaxPart) + `…", missing "\n"`,
	} {
		if got := d.Summary(n); got != want {
			t.Errorf("Summary(%d) = %q, want %q", n, got, want)
		}
	}
	if got := (Diff{}).Summary(3); got != "no file differs" {
		t.Errorf("Summary of no difference = %q", got)
	}
}

func TestMatchWords(t *testing.T) {
	for _, m := range []Match{Exact, Subset} {
		if got, err := ParseMatch(m.String()); err != nil || got != m {
			t.Errorf("ParseMatch(%q) = %v, %v", m, got, err)
		}
	}
	if _, err := ParseMatch("some"); err == nil {
		t.Error("ParseMatch of another word is no error")
	}
}

// TestCompareAgreesWithMetadataHash: under exact, metadata of one algorithm fits exactly when
// the MetadataHashes are equal, in any order and letter case.
func TestCompareAgreesWithMetadataHash(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c/d", "E"}
		draw := func(label string) []string { // texts by name; "" is no file
			return rapid.SliceOfN(rapid.SampledFrom([]string{"", "1", "2"}), len(names), len(names)).Draw(t, label)
		}
		m := &Manifest{}
		for i, text := range draw("manifest") {
			if text != "" {
				m.Files = append(m.Files, fileOf(names[i], text))
			}
		}
		alg := rapid.SampledFrom([]Algorithm{SHA1Algorithm, SHA256Algorithm}).Draw(t, "algorithm")
		var want []MetadataEntry
		for i, text := range draw("expected") {
			if text != "" {
				e := entryOf(alg, names[i], text)
				e.Name = strings.ReplaceAll(strings.ToUpper(e.Name), "/", `\`)
				want = append(want, e)
			}
		}
		if len(want) == 0 || len(m.Files) == 0 {
			return
		}
		want = rapid.Permutation(want).Draw(t, "order")
		d, err := Compare(m, want, Exact)
		if err != nil {
			t.Fatal(err)
		}
		expected, err := MetadataHash(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := m.MetadataHash(alg); err != nil || (got == expected) != (d.Fit() == Fits) {
			t.Fatalf("MetadataHash equal %v, %v, but the diff is %q", got == expected, err, lines(d))
		}
		if !slices.IsSortedFunc(d, func(a, b Difference) int { return strings.Compare(FoldName(a.Name), FoldName(b.Name)) }) {
			t.Fatalf("not sorted: %q", lines(d))
		}
	})
}
