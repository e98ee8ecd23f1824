package content

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func sha1Entry(t *testing.T, name, digest string) MetadataEntry {
	t.Helper()
	b, err := hex.DecodeString(digest)
	if err != nil {
		t.Fatal(err)
	}
	return MetadataEntry{Algorithm: SHA1Algorithm, Digest: b, Name: name}
}

// TestMetadataHashVectors holds the vectors of design section 4.3.
func TestMetadataHashVectors(t *testing.T) {
	const kb = "8E8E0175D46B5A8D52C4856FA3D282FAA12ACD63"
	esd := sha1Entry(t, "18362.30.190401-1528.19h1_release_svc_refresh_CLIENTBUSINESS_VOL_x86FRE_en-us.esd", "1F01343ACDE39AE567FF520F9FC51DC2F9507305")
	box := sha1Entry(t, "WindowsUpdateBox.exe", "A215D07C5B28BA2270D9E2F54FB51C1010777762")
	esdLower, boxLower := esd, box
	esdLower.Name, boxLower.Name = strings.ToLower(esd.Name), `.\`+strings.ToLower(box.Name)
	const sample = "f1676fb214d0b2e847514c07f18cd06a7bf10251e1f65db698a0b3ce7bf5d76b"
	cases := map[string]struct {
		entries []MetadataEntry
		want    string
	}{
		"sample":              {[]MetadataEntry{esd, box}, sample},
		"sample, other order": {[]MetadataEntry{box, esd}, sample},
		"sample, other case":  {[]MetadataEntry{boxLower, esdLower}, sample},
		"one file":            {[]MetadataEntry{sha1Entry(t, "windows6.1-kb2705219-v2-x64.cab", kb)}, "e2036040fd5468d5ca4c3f23e29133e7a813c9dd08b63a2e906bdde161b531b5"},
		"one hash, two names": {[]MetadataEntry{sha1Entry(t, "b.txt", kb), sha1Entry(t, "a.txt", kb)}, "bfb2df27ee104c58580b1b0456f4667f731b2ad4ca628ca4483d98bb6a4514b8"},
	}
	for name, c := range cases {
		before := slices.Clone(c.entries)
		got, err := MetadataHash(c.entries)
		if err != nil || got.String() != c.want {
			t.Errorf("%s: MetadataHash = %v, %v, want %s", name, got, err, c.want)
		}
		for i := range before {
			if before[i].Name != c.entries[i].Name {
				t.Errorf("%s: MetadataHash changed its argument", name)
			}
		}
	}
}

func TestMetadataHashRefuses(t *testing.T) {
	if _, err := MetadataHash(nil); !errors.Is(err, ErrUnknownMetadata) {
		t.Errorf("MetadataHash of no files = %v, want ErrUnknownMetadata", err)
	}
	entry := func(name string) MetadataEntry {
		return MetadataEntry{Algorithm: SHA256Algorithm, Digest: make([]byte, 32), Name: name}
	}
	long := entry("a")
	long.Algorithm = SHA1Algorithm
	unknown := entry("a")
	unknown.Algorithm = 3
	other := sha1Entry(t, "./A", strings.Repeat("00", 20))
	for fragment, entries := range map[string][]MetadataEntry{
		`names file "A" twice`:    {entry("a"), entry("A")},
		`names file "x\\a" twice`: {entry("x/a"), entry(`x\a`)},
		`names file "./A" twice`:  {entry("a"), other},
		"SHA1 of 32 bytes":        {long},
		"algorithm 3 is not":      {unknown},
		"empty part":              {entry("./")},
		`the part ".."`:           {entry(`..\a`)},
		"valid UTF-8":             {entry("\xff")},
	} {
		if got, err := MetadataHash(entries); err == nil || !strings.Contains(err.Error(), fragment) {
			t.Errorf("MetadataHash = %v, %v, want an error with %q", got, err, fragment)
		}
	}
}

func TestMetadataHashProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,3}(/[a-z0-9]{4,6}x)?`), 1, 8, strings.ToUpper).Draw(t, "names")
		var entries []MetadataEntry
		for _, name := range names {
			if isReserved(name) || strings.HasPrefix(name, "con/") || strings.HasPrefix(name, "nul/") || strings.HasPrefix(name, "aux/") || strings.HasPrefix(name, "prn/") {
				return
			}
			digest := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest")
			entries = append(entries, MetadataEntry{Algorithm: SHA256Algorithm, Digest: digest, Name: name})
		}
		want, err := MetadataHash(entries)
		if err != nil {
			t.Fatal(err)
		}
		shuffled := rapid.Permutation(entries).Draw(t, "order")
		if got, err := MetadataHash(shuffled); err != nil || got != want {
			t.Fatalf("in another order MetadataHash = %v, %v, want %v", got, err, want)
		}
		shuffled[0].Digest = bytes.Clone(shuffled[0].Digest)
		shuffled[0].Digest[31] ^= 1
		if got, err := MetadataHash(shuffled); err != nil || got == want {
			t.Fatalf("with another digest MetadataHash = %v, %v, as before", got, err)
		}
	})
}

func TestManifestMetadataEntries(t *testing.T) {
	m, _ := testManifest(t)
	by1, by256 := m.MetadataEntries(SHA1Algorithm), m.MetadataEntries(SHA256Algorithm)
	if len(by1) != len(m.Files) || len(by256) != len(m.Files) || m.MetadataEntries(0) != nil {
		t.Fatalf("%d and %d entries of %d files", len(by1), len(by256), len(m.Files))
	}
	for i, f := range m.Files {
		if by1[i].Name != f.Name || !bytes.Equal(by1[i].Digest, f.SHA1[:]) || !bytes.Equal(by256[i].Digest, f.SHA256[:]) {
			t.Errorf("file %d: entries %+v and %+v do not bear its name and digests", i, by1[i], by256[i])
		}
	}
	if _, err := MetadataHash(by1); err != nil {
		t.Error(err)
	}
}

func TestAlgorithm(t *testing.T) {
	for s, want := range map[string]Algorithm{"SHA1": SHA1Algorithm, "SHA256": SHA256Algorithm, "SHA-256": SHA256Algorithm} {
		if got, err := ParseAlgorithm(s); err != nil || got != want {
			t.Errorf("ParseAlgorithm(%q) = %v, %v", s, got, err)
		}
	}
	for _, bad := range []string{"", "sha1", "SHA-1", "MD5", "SHA512", "SHA256 "} {
		if got, err := ParseAlgorithm(bad); err == nil {
			t.Errorf("ParseAlgorithm(%q) = %v, want an error", bad, got)
		}
	}
	if got := Algorithm(9).String(); got != "algorithm 9" {
		t.Errorf("Algorithm(9) = %q", got)
	}
}
