package content

import (
	"strings"
	"testing"
)

func TestParseDigestBase64IsStrict(t *testing.T) {
	d := DigestOf([]byte("x"))
	good := d.Base64()
	if got, err := ParseDigestBase64(good); err != nil || got != d {
		t.Fatalf("ParseDigestBase64(%q) = %v, %v", good, got, err)
	}
	for _, bad := range []string{
		"", good[:43], good + "=", good + "\n", "\n" + good, good[:20] + "\r\n" + good[20:], good[:20] + "\n" + good[21:],
		strings.TrimRight(good, "="), " " + good[1:], "-" + good[1:], "_" + good[1:], good[:42] + "B=", good[:43] + "A",
	} {
		if got, err := ParseDigestBase64(bad); err == nil {
			t.Errorf("ParseDigestBase64(%q) = %v, want an error", bad, got)
		}
	}
}

func TestParseDigestIsStrict(t *testing.T) {
	good := DigestOf(nil).String()
	if got, err := ParseDigest(good); err != nil || got != DigestOf(nil) {
		t.Fatalf("ParseDigest(%q) = %v, %v", good, got, err)
	}
	for _, bad := range []string{"", good[1:], good + "0", strings.ToUpper(good), "g" + good[1:], good[:63] + " ", good[:63] + "G"} {
		if got, err := ParseDigest(bad); err == nil {
			t.Errorf("ParseDigest(%q) = %v, want an error", bad, got)
		}
	}
}

func TestParseID(t *testing.T) {
	for _, good := range []string{"a", "0", "c54879c8-215e-413f-afbf-a701afa2d637", "Content_1.2~3=+-", strings.Repeat("x", 128), "com10", "a.b-"} {
		if _, err := ParseID(good); err != nil {
			t.Errorf("ParseID(%q) = %v", good, err)
		}
	}
	for _, bad := range []string{
		"", ".", "..", "-a", "_a", "a/b", `a\b`, "a b", "a@1", "a:b", "ä", "a\x00", "a%20", "a\n", strings.Repeat("x", 129),
		"con", "NUL", "nul.1", "COM1", "lpt9.x", "a.", "a..",
	} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("ParseID(%q) is no error", bad)
		}
	}
}

func TestParseRef(t *testing.T) {
	cases := map[string]Ref{
		"a":                     {ID: "a"},
		"a@1":                   {ID: "a", Version: 1},
		"a@9223372036854775807": {ID: "a", Version: 1<<63 - 1},
	}
	for s, want := range cases {
		if got, err := ParseRef(s); err != nil || got != want || got.String() != s {
			t.Errorf("ParseRef(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, bad := range []string{"", "@1", "a@", "a@0", "a@01", "a@+1", "a@-1", "a@1@2", "a@1 ", "a@x", "a@9223372036854775808", "a@1_0"} {
		if got, err := ParseRef(bad); err == nil {
			t.Errorf("ParseRef(%q) = %v, want an error", bad, got)
		}
	}
}

func FuzzID(f *testing.F) {
	for _, s := range []string{"a", "c54879c8-215e-413f-afbf-a701afa2d637", "nul", "a.", "-a", "ä"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			return
		}
		if string(id) != s {
			t.Errorf("ParseID(%q) = %q", s, id)
		}
		if err := CheckName(s); err != nil {
			t.Errorf("the id %q is no part of a path: %v", s, err)
		}
	})
}

func FuzzRef(f *testing.F) {
	for _, s := range []string{"a", "a@1", "a@01", "a@0", "a@+1", "a@9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ref, err := ParseRef(s); err == nil && ref.String() != s {
			t.Errorf("ParseRef(%q).String() = %q", s, ref)
		}
	})
}
