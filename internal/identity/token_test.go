package identity

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func testToken(t testing.TB, kind string) Token {
	t.Helper()
	tok, err := testCA(t, "acme", &clock{start}).NewToken(kind, "server.example:7443", start.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestTokenRoundTrip(t *testing.T) {
	for _, k := range tokenKinds {
		tok := testToken(t, k.kind)
		s := tok.String()
		if !strings.HasPrefix(s, "freshet-"+k.kind+"-") || strings.ContainsAny(s, " \n") || len(s) > maxTokenChars {
			t.Errorf("%s token has the text %q", k.kind, s)
		}
		got, err := ParseToken(" " + s + "\r\n")
		if err != nil || !reflect.DeepEqual(got, tok) {
			t.Errorf("%s: got %+v, %v; want %+v", k.kind, got, err, tok)
		}
	}
}

func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "join.token")
	tok := testToken(t, TokenJoin)
	if err := WriteToken(path, tok); err != nil {
		t.Fatal(err)
	}
	checkPrivate(t, filepath.Dir(path), 1)
	if got, err := ReadToken(path); err != nil || !reflect.DeepEqual(got, tok) {
		t.Errorf("got %+v, %v; want %+v", got, err, tok)
	}
	if _, err := ReadToken(filepath.Join(filepath.Dir(path), "none")); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("missing file: got %v, want an error that names it", err)
	}
	if err := os.WriteFile(path, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadToken(path); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("giant file: got %v, want an error", err)
	}
}

// Every truncation and every changed character is told, and no error shows the secret.
func TestTokenDamaged(t *testing.T) {
	tok := testToken(t, TokenJoin)
	s := tok.String()
	secret := base64.RawURLEncoding.EncodeToString(appendToken(nil, tok))[60:90] // well within it
	check := func(what, s string) {
		t.Helper()
		_, err := ParseToken(s)
		if err == nil {
			t.Errorf("%s was taken", what)
			return
		}
		if msg := err.Error(); strings.Contains(msg, secret) || len(msg) > 200 {
			t.Errorf("%s: error repeats the token: %s", what, msg)
		}
	}
	for n := range len(s) {
		check("a truncated token", s[:n])
	}
	for i := len("freshet-join-"); i < len(s); i++ {
		c := "A"
		if s[i] == 'A' {
			c = "B"
		}
		check("an altered token", s[:i]+c+s[i+1:])
	}
	check("a token with a line break", s[:100]+"\n"+s[100:])
	check("a renamed token", strings.Replace(s, "freshet-join-", "freshet-admin-", 1))
	check("two tokens", s+"\n"+s)
	if _, err := ParseToken(s[:len(s)-5]); err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("got %v, want an error that says truncated", err)
	}
}

func TestTokenRequire(t *testing.T) {
	pub := testToken(t, TokenPublish)
	err := pub.Require(TokenJoin, start)
	if want := "this is a publish token; enrolling a device takes a join token"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	if err := pub.Require(TokenPublish, start); err != nil {
		t.Errorf("publish: %v", err)
	}
	if err := pub.Require(TokenPublish, pub.Expires); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: got %v, want an error", err)
	}
	if err := WrongKind(TokenJoin, TokenAdmin); err == nil || !strings.Contains(err.Error(), "takes an admin token") {
		t.Errorf("got %v", err)
	}
}

func TestTokenIsNotLogged(t *testing.T) {
	tok := testToken(t, TokenAdmin)
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("token", "token", tok, "pointer", &tok)
	if strings.Contains(b.String(), "freshet-admin-") || !strings.Contains(b.String(), "server.example") {
		t.Errorf("log has %s", b.String())
	}
}

func TestNewTokenRefuses(t *testing.T) {
	ca := testCA(t, "acme", &clock{start})
	for _, tt := range []struct{ kind, address string }{
		{"king", "a:1"}, {TokenJoin, ""}, {TokenJoin, "a"}, {TokenJoin, ":1"}, {TokenJoin, "a:0"}, {TokenJoin, "a:x"},
		{TokenJoin, "a b:1"}, {TokenJoin, strings.Repeat("a", 255) + ":1"},
	} {
		if _, err := ca.NewToken(tt.kind, tt.address, start); err == nil {
			t.Errorf("NewToken(%q, %q) was made", tt.kind, tt.address)
		}
	}
}

func TestSecrets(t *testing.T) {
	a, b := testToken(t, TokenJoin), testToken(t, TokenJoin)
	h := HashSecret(a.Secret)
	if !h.Matches(a.Secret) || h.Matches(b.Secret) || h.Matches(nil) {
		t.Error("a hash must match its own secret alone")
	}
	got, err := ParseAuthorization(a.Authorization())
	if err != nil || !bytes.Equal(got, a.Secret) {
		t.Errorf("ParseAuthorization: %v", err)
	}
	for _, s := range []string{"", "Bearer", "Bearer ", "Basic YTpi", "Bearer " + strings.Repeat("A", 42), a.Authorization() + "A", "Bearer !" + a.Authorization()[8:]} {
		if _, err := ParseAuthorization(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	full := appendToken(nil, testToken(f, TokenJoin))
	f.Add(full[:len(full)-checksumSize])
	f.Fuzz(func(t *testing.T, b []byte) { // past the checksum, which a fuzzer cannot guess
		tok, err := parseToken(b)
		if err != nil {
			return
		}
		if got := appendToken(nil, tok); !bytes.Equal(got[:len(got)-checksumSize], b) {
			t.Errorf("parse, append: got %x, want %x", got, b)
		}
		if again, err := ParseToken(tok.String()); err != nil || !reflect.DeepEqual(again, tok) {
			t.Errorf("text: got %+v, %v; want %+v", again, err, tok)
		}
	})
}
