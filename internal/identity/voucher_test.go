package identity

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// reads is a claim on the vector whose readings of the manifest are counted.
type reads struct {
	n   int
	err error
}

func (r *reads) claim(s Signed) Claim {
	return Claim{ID: s.ID, Signature: s.Signature, Manifest: func() ([]byte, error) {
		r.n++
		return s.Manifest, r.err
	}}
}

func TestVoucher(t *testing.T) {
	s, keys := signedVector(t)
	good := Reader{Group: "staff", Now: vectorTerms.Expires.Add(-time.Second)}
	with := func(change func(*Reader)) Reader {
		r := good
		change(&r)
		return r
	}
	other := s
	other.ID = "other"
	forged := s
	forged.Manifest = append([]byte(" "), s.Manifest...)
	unsigned := s
	unsigned.Signature = nil
	garbled := s
	garbled.Signature = []byte("garbled")
	strange := pinned(t, "tools="+strangerKey(t))
	for name, c := range map[string]struct {
		keys   Publishers
		reader Reader
		signed Signed
		want   string // in the error; empty: admitted
		reads  int    // of the manifest, in two askings
	}{
		"named":                {keys, good, s, "", 1},
		"another group":        {keys, with(func(r *Reader) { r.Group = "sales" }), s, `not for "sales"`, 1},
		"no group":             {keys, with(func(r *Reader) { r.Group = "" }), s, `not for ""`, 1},
		"expired":              {keys, with(func(r *Reader) { r.Now = vectorTerms.Expires }), s, "expired", 1},
		"a newer one was seen": {keys, with(func(r *Reader) { r.Seen = vectorTerms.Generation + 1 }), s, "lower generation", 1},
		"key of another id":    {keys, good, other, "required and missing", 0},
		"another's key":        {strange, good, s, "is not pinned for it", 1},
		"no key":               {Publishers{}, good, s, "required and missing", 0},
		"no key, all required": {Publishers{Required: true}, good, s, "required and missing", 0},
		"another manifest":     {keys, good, forged, "is not pinned for it", 1},
		"unsigned":             {keys, good, unsigned, "required and missing", 0},
		"garbled":              {keys, good, garbled, "minisign", 1},
	} {
		var v Voucher
		var r reads
		for range 2 {
			err := v.Admits(c.keys, c.reader, r.claim(c.signed))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
		}
		if r.n != c.reads {
			t.Errorf("%s: the manifest was read %d times, want %d", name, r.n, c.reads)
		}
	}
}

// strangerKey returns a key that signed nothing.
func strangerKey(t *testing.T) string {
	t.Helper()
	b := []byte(publicKey(t, vector(t, "minisign.pub")))
	b[len(b)-2] ^= 1 // in the key's last bytes
	return string(b)
}

// TestVoucherFollows: other keys, and another signature of the same manifest, are looked at
// anew; a manifest that could not be read is read again.
func TestVoucherFollows(t *testing.T) {
	s, keys := signedVector(t)
	good := Reader{Group: "staff", Now: vectorTerms.Expires.Add(-time.Second)}
	var v Voucher
	broken := reads{err: errors.New("disk")}
	if err := v.Admits(keys, good, broken.claim(s)); !errors.Is(err, broken.err) {
		t.Errorf("an unreadable manifest: %v", err)
	}
	var r reads
	if err := v.Admits(keys, good, r.claim(s)); err != nil {
		t.Error(err)
	}
	if err := v.Admits(pinned(t, "tools="+strangerKey(t)), good, r.claim(s)); !errors.Is(err, ErrUnsigned) {
		t.Errorf("a key that is not pinned any more: %v", err)
	}
	if err := v.Admits(keys, good, r.claim(s)); err != nil {
		t.Errorf("pinned again: %v", err)
	}
	key, err := ReadSigningKey(vectors+"/minisign.key", vectorKey)
	if err != nil {
		t.Fatal(err)
	}
	longer := vectorTerms
	longer.Expires = longer.Expires.Add(time.Hour)
	again := s
	if again.Signature, err = SignFor(key, s.Manifest, longer); err != nil {
		t.Fatal(err)
	}
	late := Reader{Group: "staff", Now: vectorTerms.Expires}
	if err := v.Admits(keys, late, r.claim(s)); !errors.Is(err, ErrSignatureExpiry) {
		t.Errorf("expired: %v", err)
	}
	if err := v.Admits(keys, late, r.claim(again)); err != nil {
		t.Errorf("signed for longer: %v", err)
	}
	if r.n != 4 {
		t.Errorf("the manifest was read %d times, want 4", r.n)
	}
}

func TestVoucherAskedByMany(t *testing.T) {
	s, keys := signedVector(t)
	var v Voucher
	var r reads
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := v.Admits(keys, Reader{Group: "lab", Now: vectorTerms.Expires.Add(-time.Second)}, r.claim(s)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if r.n != 1 {
		t.Errorf("the manifest was read %d times, want once", r.n)
	}
}
