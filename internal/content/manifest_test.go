package content

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// testManifest builds a content of four files, given out of order.
func testManifest(t testing.TB) (*Manifest, *HashFile) {
	t.Helper()
	h := NewFileHasher()
	var files []File
	var pieces [][]Digest
	for _, f := range []struct {
		name string
		size int
	}{{"setup.exe", 2*PieceSize + 1}, {"dir/empty", 0}, {"dir/ä.cab", 5}, {"Readme", PieceSize}} {
		h.Write(make([]byte, f.size))
		file, p := h.Sum(f.name, f.name == "setup.exe")
		files, pieces = append(files, file), append(pieces, p)
	}
	m, hf, err := BuildManifest(Ref{ID: "demo", Version: 3}, files, pieces)
	if err != nil {
		t.Fatal(err)
	}
	return m, hf
}

const oneFileManifest = `{"schema":1,"contentId":"demo","version":1,"pieceSize":1048576,"size":3,` +
	`"hashOfHashes":"T4tCwi3TcptRm6b2jS2nzFstYG0F2u1a1RKMwD5sY1g=","files":[{"name":"a.txt","size":3,` +
	`"sha1":"a9993e364706816aba3e25717850c26c9cd0d89d",` +
	`"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","executable":true}]}`

// TestManifestSpelling fixes the bytes, and with them the manifest digest.
func TestManifestSpelling(t *testing.T) {
	h := NewFileHasher()
	h.Write([]byte("abc"))
	f, p := h.Sum("a.txt", true)
	m, hf, err := BuildManifest(Ref{ID: "demo", Version: 1}, []File{f}, [][]Digest{p})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(AppendManifest(nil, m)); got != oneFileManifest {
		t.Errorf("AppendManifest = %s\nwant %s", got, oneFileManifest)
	}
	const hashFile = `{"MajorVersion":1,"MinorVersion":0,"HashOfHashes":"T4tCwi3TcptRm6b2jS2nzFstYG0F2u1a1RKMwD5sY1g=",` +
		`"ContentLength":3,"PieceSize":1048576,"Pieces":["ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="]}`
	if got := string(AppendHashFile(nil, hf)); got != hashFile {
		t.Errorf("AppendHashFile = %s\nwant %s", got, hashFile)
	}
}

func TestManifestRoundTrip(t *testing.T) {
	m, _ := testManifest(t)
	b := AppendManifest([]byte("x"), m)
	if len(b)-1 != manifestLen(m) {
		t.Errorf("AppendManifest appends %d bytes, manifestLen says %d", len(b)-1, manifestLen(m))
	}
	got, err := ParseManifest(b[1:])
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("ParseManifest = %+v, %v, want %+v", got, err, m)
	}
	var names []string
	for _, f := range m.Files {
		names = append(names, f.Name)
	}
	if want := []string{"Readme", "dir/empty", "dir/ä.cab", "setup.exe"}; !slices.Equal(names, want) {
		t.Errorf("files in the order %q, want %q", names, want)
	}
	empty, hf, err := BuildManifest(Ref{ID: "none", Version: 1}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseManifest(AppendManifest(nil, empty)); err != nil || len(got.Files) != 0 || got.HashOfHashes != DigestOf(nil) {
		t.Errorf("manifest without files: %+v, %v", got, err)
	}
	if err := hf.Fits(empty, NewLayout(nil)); err != nil {
		t.Error(err)
	}
}

// TestParseManifestRefuses changes the one file's manifest in one place each.
func TestParseManifestRefuses(t *testing.T) {
	file := oneFileManifest[strings.Index(oneFileManifest, `{"name"`) : len(oneFileManifest)-2]
	cases := map[string]struct{ old, new, want string }{
		"blank":               {`"version":1`, `"version": 1`, "want a number without leading zeros"},
		"first blank":         {`{"schema"`, ` {"schema"`, "byte 0: want"},
		"final newline":       {`]}`, "]}\n", "want the end"},
		"newer schema":        {`"schema":1`, `"schema":2`, "made by a newer freshet"},
		"schema 0":            {`"schema":1`, `"schema":0`, "byte 10: want schema 1"},
		"key order":           {`"contentId":"demo","version":1`, `"version":1,"contentId":"demo"`, `want ",\"contentId\":\""`},
		"bad id":              {`"demo"`, `"../demo"`, "id"},
		"escaped id":          {`"demo"`, `"d\u0065mo"`, "not allowed"},
		"version 0":           {`"version":1`, `"version":0`, "version 0"},
		"version 01":          {`"version":1`, `"version":01`, "leading zeros"},
		"version too big":     {`"version":1`, `"version":9223372036854775808`, "want a number up to"},
		"version -1":          {`"version":1`, `"version":-1`, "want a number"},
		"version 1.0":         {`"version":1`, `"version":1.0`, "want"},
		"piece size":          {`1048576`, `65536`, "1048576"},
		"wrong sum":           {`"size":3,"hash`, `"size":4,"hash`, "its files have 3 bytes"},
		"size over the limit": {`"size":3,"sha1`, `"size":8796093022209,"sha1`, "want a number up to 8796093022208"},
		"base64url":           {`T4tCwi`, `T4tC-i`, "base64"},
		"base64 newline":      {`T4tCwi`, "T4tC\ni", "base64"},
		"short base64":        {`Y1g=`, `Y1=`, "base64"},
		"upper hex":           {`a9993e`, `A9993e`, "want a lower-case hex digit"},
		"no hex":              {`a9993e`, `g9993e`, "want a lower-case hex digit, have 'g'"},
		"short sha1":          {`a9993e`, `9993e`, "want a lower-case hex digit, have '\"'"},
		"long sha256":         {`ad","exec`, `ad0","exec`, "want"},
		"executable false":    {`"executable":true`, `"executable":false`, `want "}"`},
		"unknown key":         {`"executable":true`, `"mode":1`, `want "}"`},
		"escaped name":        {`a.txt`, `a\u002etxt`, "the character"},
		"climbing name":       {`a.txt`, `../a`, `the part ".."`},
		"empty name":          {`a.txt`, ``, "empty part"},
		"control in name":     {`a.txt`, "a\ttxt", "the character"},
		"not UTF-8":           {`a.txt`, "a\xff", "valid UTF-8"},
		"same name twice":     {file, file + "," + file, "stands after"},
		"not in order":        {file, file + "," + strings.Replace(file, "a.txt", "A.txt", 1), "stands after"},
		"clash":               {`3,"hashOfHashes":"T4tCwi3TcptRm6b2jS2nzFstYG0F2u1a1RKMwD5sY1g=","files":[` + file, `6,"hashOfHashes":"T4tCwi3TcptRm6b2jS2nzFstYG0F2u1a1RKMwD5sY1g=","files":[` + strings.Replace(file, "a.txt", "A.txt", 1) + "," + file, "clash"},
		"comma at the end":    {file, file + ",", "want"},
		"no comma":            {file, file + file, "want"},
		"null":                {oneFileManifest, `null`, "byte 0"},
		"empty":               {oneFileManifest, ``, "byte 0"},
		"array":               {oneFileManifest, `[]`, "byte 0"},
		"byte order mark":     {oneFileManifest, "\ufeff" + oneFileManifest, "byte 0"},
		"twice":               {oneFileManifest, oneFileManifest + oneFileManifest, "want the end"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			in := strings.Replace(oneFileManifest, c.old, c.new, 1)
			if in == oneFileManifest {
				t.Fatalf("%q is not in the manifest", c.old)
			}
			m, err := ParseManifest([]byte(in))
			if err == nil || m != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("ParseManifest = %v, %v, want an error with %q", m, err, c.want)
			}
		})
	}
}

func TestParseManifestTruncated(t *testing.T) {
	for n := range len(oneFileManifest) {
		if _, err := ParseManifest([]byte(oneFileManifest[:n])); err == nil {
			t.Errorf("the first %d bytes are a manifest", n)
		}
	}
	if _, err := ParseManifest([]byte(oneFileManifest)); err != nil {
		t.Error(err)
	}
}

func TestParseManifestLimits(t *testing.T) {
	if _, err := ParseManifest(make([]byte, MaxManifest+1)); err == nil || !strings.Contains(err.Error(), "more than 67108864") {
		t.Errorf("a manifest of too many bytes: %v", err)
	}
	head := oneFileManifest[:strings.Index(oneFileManifest, `{"name"`)]
	many := []byte(head + strings.Repeat(`{"name":"`, MaxFiles+1))
	var err error
	allocs := testing.AllocsPerRun(1, func() { _, err = ParseManifest(many) })
	if err == nil || !strings.Contains(err.Error(), "300001 files, more than 300000") || allocs > 20 {
		t.Errorf("a manifest of too many files: %v, %v allocations", err, allocs)
	}
	m := &Manifest{Ref: Ref{ID: "a", Version: 1}, PieceSize: PieceSize, Size: MaxSize + PieceSize, Files: []File{{Name: "a", Size: MaxSize}, {Name: "b", Size: PieceSize}}}
	if err := m.Check(); err == nil || !strings.Contains(err.Error(), "8388609 pieces") {
		t.Errorf("a manifest of too many pieces: %v", err)
	}
	m.Files[1].Size = -1
	if err := m.Check(); err == nil || !strings.Contains(err.Error(), "size -1") {
		t.Errorf("a negative size: %v", err)
	}
	m.Ref.Version = math.MaxUint64
	if err := m.Check(); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("a version over the limit: %v", err)
	}
}

// TestManifestLimitCountsBytes builds manifests whose names fill the limit.
func TestManifestLimitCountsBytes(t *testing.T) {
	long := strings.Repeat("x", 250)
	m := &Manifest{Ref: Ref{ID: "a", Version: 1}, PieceSize: PieceSize}
	for i := range 16500 {
		m.Files = append(m.Files, File{Name: fmt.Sprintf("%05d%s", i, strings.Repeat("/"+long, 17)[:4050])})
	}
	if err := m.Check(); err == nil || !strings.Contains(err.Error(), "bytes, more than 67108864") {
		t.Errorf("a manifest of %d bytes: %v", manifestLen(m), err)
	}
	m.Files = m.Files[:15900]
	if err := m.Check(); err != nil {
		t.Errorf("a manifest of %d bytes: %v", manifestLen(m), err)
	}
}

func TestBuildManifestRefuses(t *testing.T) {
	ref := Ref{ID: "a", Version: 1}
	d := DigestOf([]byte("abc"))
	file := func(name string, size int64) File { return File{Name: name, Size: size, SHA256: d} }
	cases := map[string]struct {
		ref    Ref
		files  []File
		pieces [][]Digest
		want   string
	}{
		"no version":         {Ref{ID: "a"}, nil, nil, "version 0"},
		"bad id":             {Ref{ID: "nul", Version: 1}, nil, nil, "reserves"},
		"pieces missing":     {ref, []File{file("a", 3)}, nil, "1 files, piece hashes of 0"},
		"too few pieces":     {ref, []File{file("a", PieceSize+1)}, [][]Digest{{d}}, "1 piece hashes, want 2"},
		"pieces of an empty": {ref, []File{file("a", 0)}, [][]Digest{{d}}, "1 piece hashes, want 0"},
		"other piece hash":   {ref, []File{file("a", 3)}, [][]Digest{{{1}}}, "has one piece, whose SHA-256"},
		"twice":              {ref, []File{file("a", 3), file("a", 3)}, [][]Digest{{d}, {d}}, "stands after"},
		"clash":              {ref, []File{file("a", 3), file("A/b", 3)}, [][]Digest{{d}, {d}}, "clash"},
		"bad name":           {ref, []File{file("a:b", 3)}, [][]Digest{{d}}, "the character"},
		"negative":           {ref, []File{file("a", -1)}, [][]Digest{{}}, "size -1"},
	}
	for name, c := range cases {
		if _, _, err := BuildManifest(c.ref, c.files, c.pieces); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: BuildManifest: %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestManifestOfManyFiles(t *testing.T) {
	m, hf := manyFiles(t, 15_000)
	b := AppendManifest(nil, m)
	got, err := ParseManifest(b)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Fatalf("a manifest of %d files does not come back: %v", len(m.Files), err)
	}
	if err := hf.Fits(got, NewLayout(got.Files)); err != nil {
		t.Error(err)
	}
}

// manyFiles returns a content of n files, the number spread over folders.
func manyFiles(t testing.TB, n int) (*Manifest, *HashFile) {
	t.Helper()
	files, pieces := make([]File, n), make([][]Digest, n)
	for i := range files {
		d := DigestOf(fmt.Append(nil, i))
		folder := fmt.Sprintf("src/cmd/dir%03d/inner", i/40)
		if i%8 == 0 {
			folder = fmt.Sprintf("src/cmd/Other%03d", i/40)
		}
		files[i] = File{Name: fmt.Sprintf("%s/file_number_%d.go", folder, i), Size: int64(i), SHA256: d, SHA1: SHA1(d[:20])}
		if i > 0 {
			pieces[i] = []Digest{d}
		}
	}
	m, hf, err := BuildManifest(Ref{ID: "go", Version: 1}, files, pieces)
	if err != nil {
		t.Fatal(err)
	}
	return m, hf
}

func FuzzManifest(f *testing.F) {
	m, _ := testManifest(f)
	f.Add(AppendManifest(nil, m))
	f.Add([]byte(oneFileManifest))
	f.Add([]byte(strings.Replace(oneFileManifest, "a.txt", "A/b", 1)))
	f.Add([]byte(strings.Replace(oneFileManifest, `"schema":1`, `"schema":2`, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		if got := AppendManifest(nil, m); !bytes.Equal(got, b) {
			t.Errorf("parsed and appended:\n%s\nwant\n%s", got, b)
		}
		if l := NewLayout(m.Files); l.Size() != m.Size || l.Pieces() != m.Pieces() {
			t.Errorf("layout of %d bytes, %d pieces; manifest %d, %d", l.Size(), l.Pieces(), m.Size, m.Pieces())
		}
	})
}

func BenchmarkAppendManifest(b *testing.B) {
	m, _ := manyFiles(b, 15_000)
	var buf []byte
	b.SetBytes(int64(manifestLen(m)))
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendManifest(buf[:0], m)
	}
}

func BenchmarkParseManifest(b *testing.B) {
	m, _ := manyFiles(b, 15_000)
	in := AppendManifest(nil, m)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseManifest(in); err != nil {
			b.Fatal(err)
		}
	}
}
