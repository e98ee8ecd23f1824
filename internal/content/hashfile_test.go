package content

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestHashFileRoundTrip(t *testing.T) {
	m, h := testManifest(t)
	got, err := ParseHashFile(AppendHashFile([]byte("x"), h)[1:])
	if err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("ParseHashFile = %+v, %v, want %+v", got, err, h)
	}
	raw := AppendHashFileRaw(nil, h)
	if len(raw) != 32*len(h.Pieces) {
		t.Errorf("raw hash file of %d pieces has %d bytes", len(h.Pieces), len(raw))
	}
	got, err = ParseHashFileRaw(raw, m)
	if err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("ParseHashFileRaw = %+v, %v, want %+v", got, err, h)
	}
	if err := got.Fits(m, NewLayout(m.Files)); err != nil {
		t.Error(err)
	}
}

func TestParseHashFileRefuses(t *testing.T) {
	_, h := testManifest(t)
	good := string(AppendHashFile(nil, h))
	first := `"` + h.Pieces[0].Base64() + `"`
	cases := map[string]struct{ old, new, want string }{
		"newer major":        {`"MajorVersion":1`, `"MajorVersion":2`, "made by a newer freshet"},
		"major 0":            {`"MajorVersion":1`, `"MajorVersion":0`, "want MajorVersion 1"},
		"newer minor":        {`"MinorVersion":0`, `"MinorVersion":1`, "made by a newer freshet"},
		"HashOfHashes":       {h.HashOfHashes.Base64(), DigestOf(nil).Base64(), "its pieces give"},
		"piece changed":      {h.Pieces[1].Base64(), DigestOf(nil).Base64(), "its pieces give"},
		"length too big":     {`"ContentLength":3145734`, `"ContentLength":314573400`, "cannot hold"},
		"length too small":   {`"ContentLength":3145734`, `"ContentLength":4`, "cannot hold"},
		"length 0":           {`"ContentLength":3145734`, `"ContentLength":0`, "cannot hold"},
		"piece size 0":       {`"PieceSize":1048576`, `"PieceSize":0`, "want a piece size"},
		"one piece fewer":    {first + ",", ``, "its pieces give"},
		"blank":              {first + ",", first + ", ", "want"},
		"unpadded":           {first, strings.Replace(first, "=", "", 1), "want"},
		"base64 with a line": {first, first[:10] + "\n" + first[11:], "base64"},
		"final newline":      {"]}", "]}\n", "want the end"},
		"nothing":            {good, "", "byte 0"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			in := strings.Replace(good, c.old, c.new, 1)
			if in == good {
				t.Fatalf("%q is not in the hash file %s", c.old, good)
			}
			got, err := ParseHashFile([]byte(in))
			if err == nil || got != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("ParseHashFile = %v, %v, want an error with %q", got, err, c.want)
			}
		})
	}
	for n := range len(good) {
		if _, err := ParseHashFile([]byte(good[:n])); err == nil {
			t.Errorf("the first %d bytes are a hash file", n)
		}
	}
}

// TestHashFileNumberIsBounded claims more pieces than the length can have.
func TestHashFileNumberIsBounded(t *testing.T) {
	const head = `{"MajorVersion":1,"MinorVersion":0,"HashOfHashes":"T4tCwi3TcptRm6b2jS2nzFstYG0F2u1a1RKMwD5sY1g=","ContentLength":%d,"PieceSize":%d,"Pieces":[`
	in := fmt.Appendf(nil, head, 3, PieceSize)
	in = append(in, bytes.Repeat([]byte("x"), 1<<20)...)
	var err error
	allocs := testing.AllocsPerRun(1, func() { _, err = ParseHashFile(in) })
	if err == nil || !strings.Contains(err.Error(), "cannot hold 3 bytes") || allocs > 20 {
		t.Errorf("ParseHashFile: %v, %v allocations", err, allocs)
	}
	if _, err := ParseHashFile(fmt.Appendf(nil, head, MaxSize+1, PieceSize)); err == nil || !strings.Contains(err.Error(), "want a number up to") {
		t.Errorf("ParseHashFile of a length over the limit: %v", err)
	}
}

func TestParseHashFileRawRefuses(t *testing.T) {
	m, h := testManifest(t)
	raw := AppendHashFileRaw(nil, h)
	for name, b := range map[string][]byte{
		"empty": nil, "short": raw[:len(raw)-1], "a piece fewer": raw[32:], "a piece more": append(bytes.Clone(raw), raw[:32]...),
	} {
		if got, err := ParseHashFileRaw(b, m); err == nil || !strings.Contains(err.Error(), "for 5 pieces") {
			t.Errorf("%s: ParseHashFileRaw = %v, %v", name, got, err)
		}
	}
	raw[70] ^= 1
	if got, err := ParseHashFileRaw(raw, m); err == nil || got != nil || !strings.Contains(err.Error(), "its pieces give") {
		t.Errorf("a changed bit: ParseHashFileRaw = %v, %v", got, err)
	}
}

func TestHashFileFits(t *testing.T) {
	m, _ := testManifest(t)
	l := NewLayout(m.Files)
	for want, change := range map[string]func(h *HashFile){
		"pieces of 65536 bytes":   func(h *HashFile) { h.PieceSize = 65536 },
		"of 9 bytes":              func(h *HashFile) { h.ContentLength = 9 },
		"has 4 pieces":            func(h *HashFile) { h.Pieces = h.Pieces[1:] },
		"HashOfHashes":            func(h *HashFile) { h.HashOfHashes[0]++ },
		`"Readme" has one piece`:  func(h *HashFile) { h.Pieces[0][0]++ },
		`"dir/ä.cab" has one pie`: func(h *HashFile) { h.Pieces[1][0]++ },
	} {
		_, h := testManifest(t)
		change(h)
		if err := h.Fits(m, l); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Fits = %v, want an error with %q", err, want)
		}
	}
	_, h := testManifest(t)
	if err := h.Fits(m, NewLayout(m.Files[1:])); err == nil {
		t.Error("Fits takes the layout of other files")
	}
}

func FuzzHashFile(f *testing.F) {
	_, h := testManifest(f)
	f.Add(AppendHashFile(nil, h))
	f.Add(AppendHashFile(nil, &HashFile{HashOfHashes: HashOfHashes(nil), PieceSize: PieceSize}))
	f.Add([]byte(`{"MajorVersion":1,"MinorVersion":0,"HashOfHashes":"`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHashFile(b)
		if err != nil {
			return
		}
		if got := AppendHashFile(nil, h); !bytes.Equal(got, b) {
			t.Errorf("parsed and appended:\n%s\nwant\n%s", got, b)
		}
	})
}

func FuzzHashFileRaw(f *testing.F) {
	m, h := testManifest(f)
	f.Add(AppendHashFileRaw(nil, h))
	f.Add(make([]byte, 32*5))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHashFileRaw(b, m)
		if err != nil {
			return
		}
		if got := AppendHashFileRaw(nil, h); !bytes.Equal(got, b) {
			t.Errorf("parsed and appended: %x, want %x", got, b)
		}
	})
}

func BenchmarkParseHashFile(b *testing.B) {
	_, h := manyFiles(b, 15_000)
	in := AppendHashFile(nil, h)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseHashFile(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendHashFile(b *testing.B) {
	_, h := manyFiles(b, 15_000)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendHashFile(buf[:0], h)
	}
	b.SetBytes(int64(len(buf)))
}
