package api

import (
	"strings"
	"testing"
)

func TestNormalURL(t *testing.T) {
	for in, want := range map[string]string{
		"HTTPS://DL.Example.COM:443/Tool.zip#top":         "https://dl.example.com/Tool.zip",
		"http://dl.example.com:80":                        "http://dl.example.com/",
		"http://dl.example.com:":                          "http://dl.example.com/",
		"http://dl.example.com:0443/a":                    "http://dl.example.com:443/a",
		"https://dl.example.com:80/a":                     "https://dl.example.com:80/a",
		"https://dl.example.com/a?B=C&d=%2f#e":            "https://dl.example.com/a?B=C&d=%2f",
		"https://dl.example.com/a?":                       "https://dl.example.com/a?",
		"https://dl.example.com/a?b=c d\u00e9":            "https://dl.example.com/a?b=c%20d%C3%A9",
		"https://dl.example.com/a b/\u00e9":               "https://dl.example.com/a%20b/%C3%A9",
		"https://dl.example.com/%7euser/a%2Fb/../c":       "https://dl.example.com/%7euser/a%2Fb/../c",
		"https://[2001:DB8:0::1]:8443/x":                  "https://[2001:db8::1]:8443/x",
		"http://10.0.0.1:8080/x":                          "http://10.0.0.1:8080/x",
		"https://a_b.example/x":                           "https://a_b.example/x",
		"https://h/" + strings.Repeat("x", MaxURL-10):     "https://h/" + strings.Repeat("x", MaxURL-10),
		"https://dl.example.com/filestreaming/files/1?P1": "https://dl.example.com/filestreaming/files/1?P1",
	} {
		if got, err := NormalURL(in); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestNormalURLRefuses(t *testing.T) {
	for in, word := range map[string]string{
		"":                                            "form http",
		"tool.zip":                                    "form http",
		"ftp://dl.example.com/a":                      "form http",
		"mailto:a@b":                                  "form http",
		"https:///a":                                  "host name",
		"https://:443/a":                              "host name",
		"https://dl.example.com:0/a":                  "port",
		"https://dl.example.com:65536/a":              "port",
		"https://b\u00fccher.example/a":               "host name",
		"https://a<b/":                                "host name",
		"https://[fe80::1%25en0]/":                    "IPv6",
		"https://[::ffff/":                            "well formed",
		"https://jo:hunter2@example.com/":             "user name",
		"https://jo:hunter2@exa mple/":                "well formed",
		"https://h/\x00":                              "well formed",
		"https://h/" + strings.Repeat("x", MaxURL):    "at most 2048",
		"https://h/" + strings.Repeat("\u00e9", 1000): "when escaped",
	} {
		got, err := NormalURL(in)
		if err == nil || !strings.Contains(err.Error(), word) || got != "" {
			t.Errorf("%q: %q, %v; want an error with %q", in, got, err, word)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestShownURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://h/a":                           "https://h/a",
		"https://h/a?sig=secret#x":              "https://h/a?…",
		"https://jo:hunter2@h/a@b":              "https://…@h/a@b",
		"https://h/" + strings.Repeat("x", 300): "https://h/" + strings.Repeat("x", 190) + "…",
	} {
		if got := ShownURL(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzNormalURL wants a URL that is taken to be its own normal form, short and printable.
func FuzzNormalURL(f *testing.F) {
	for _, s := range []string{"HTTP://Example.com:80/a b?c=d#e", "https://[::1]:444", "https://h/%zz", "https://h?%", "http://h:/?", "https://h/\xff?\xff", "https://a@b/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := NormalURL(s)
		if err != nil {
			return
		}
		again, err := NormalURL(n)
		if err != nil || again != n {
			t.Fatalf("%q: normal %q, and that one's %q, %v", s, n, again, err)
		}
		if len(n) > MaxURL || strings.ContainsFunc(n, func(c rune) bool { return c <= ' ' || c >= 0x7f }) || strings.ContainsAny(n, "#") {
			t.Fatalf("%q: normal %q is too long or holds what a URL does not", s, n)
		}
	})
}
