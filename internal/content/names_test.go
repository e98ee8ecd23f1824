package content

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// badNames maps a fragment of the error to the names that get it.
var badNames = map[string][]string{
	"empty part": {
		"", "/", "//", "/a", "//a", "/a/b", "a/", "a//b", "a/b/", "a///b", "/etc/passwd", "//server/share",
	},
	`the part ".`: {
		".", "..", "./", "../", "./a", "../a", "a/.", "a/..", "a/./b", "a/../b", "a/b/..", "../../etc/passwd", "a/b/../../..", "./.", "../..",
	},
	"dot or blank": {
		"...", "....", "a.", "a..", "a. ", "a .", "a ", " ", "  ", "a/b.", "a./b", "a /b", "a/ /b", "a/...", ".../a", "dir./file", "file.txt.",
		"file.txt ", "a/b ", ". ", ".. ", ". .", "CON.", "nul ", "\u00e9.",
	},
	"the character": {
		`\`, `\a`, `a\b`, `..\a`, `a\..\b`, `C:\a`, `\\server\share`, `\\?\C:\a`, `a\`, `.\a`,
		":", "a:b", "C:", "c:a", "C:/a", "a:", ":a", "file.txt:stream", "file::$DATA", "a/b:c",
		"<", ">", `"`, "|", "?", "*", "a<b", "a>b", `a"b`, "a|b", "a?b", "a*b", "*.cab", "what?", "dir?/a", "a/*",
		"\x00", "a\x00", "a\x00b", "\x00a", "a/b\x00.txt", "\x01", "\a", "\b", "\t", "\n", "\v", "\f", "\r", "\x1b", "\x1f",
		"a\nb", "a\r\nb", "a\tb", "a/\n/b", "a\x1b[31mb", "\x7f", "a\x7fb", "\u0080", "\u0085", "\u009f", "a\u0090b", "\u009b31m",
	},
	"reserves": {
		"CON", "con", "Con", "cOn", "PRN", "prn", "AUX", "aux", "NUL", "nul", "nUL",
		"CON.txt", "con.tar.gz", "nul.a", "AUX.h", "prn.log", "CON .txt", "nul  .txt", "aux .c",
		"a/CON", "a/nul/b", "NUL/a", "aux/b.txt", "a/prn.txt/b",
		"CONIN$", "conin$", "CONOUT$", "conout$", "CONOUT$.txt", "a/CONIN$",
		"COM¹", "com²", "CoM³", "LPT¹", "lpt²", "Lpt³", "COM¹.txt", "a/LPT³.log",
		"COM1.txt", "lpt9.tar.gz", "COM0.a", "a/lpt0", "com5 .x",
	},
	"valid UTF-8": {
		"\xff", "a\xffb", "\xc0\xaf", "\xc0\xae\xc0\xae/a", "a/\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82", "\x80", "caf\xe9",
	},
}

func TestCheckNameRefuses(t *testing.T) {
	bad := map[string][]string{
		"a part of 256 bytes": {strings.Repeat("a", 256), "a/" + strings.Repeat("b", 256), strings.Repeat("é", 128)},
		"has 4097 bytes":      {strings.Repeat("a/", 2048) + "b"},
		"has 65 parts":        {strings.Repeat("a/", 64) + "b"},
	}
	for fragment, names := range badNames {
		bad[fragment] = append(bad[fragment], names...)
	}
	for i := range 10 {
		bad["reserves"] = append(bad["reserves"], fmt.Sprintf("COM%d", i), fmt.Sprintf("lpt%d", i))
	}
	count := 0
	for fragment, names := range bad {
		for _, name := range names {
			count++
			if err := CheckName(name); err == nil || !strings.Contains(err.Error(), fragment) {
				t.Errorf("CheckName(%q) = %v, want an error with %q", name, err, fragment)
			}
		}
	}
	if count < 150 {
		t.Errorf("the table has %d names, want at least 150", count)
	}
}

func TestCheckNameAllows(t *testing.T) {
	for _, name := range []string{
		"a", "A", "a.b", "dir/a.cab", ".hidden", "..a", "a..b", "...a", "dir/..a", " a", "a b", "-rf", "~", "~root", "$HOME", "%PATH%", "a&b", "a;b", "a'b", "a`b",
		"a,b", "a=b", "a+b", "[a]", "{a}", "(a)", "#a", "@a", "!a", "^a", "CONN", "CO", "CONSOLE", "console.txt", "COM", "COM10", "COM11.txt", "COMA", "LPT", "LPTX", "COM⁴",
		"nul1", "xnul", "nulx.txt", "a-CON", "con-a", "CONIN", "CONIN$$", "CLOCK$", "auxiliary", "日本語/ファイル", "é", "e\u0301", "ß", "🙂", "\u00a0", "a\u2028b",
		"\ufffd", "\u202e", "$MFT", "desktop.ini", "Thumbs.db", "18362.30.190401-1528.19h1_release_svc_refresh_CLIENTBUSINESS_VOL_x86FRE_en-us.esd",
		strings.Repeat("a", 255), strings.Repeat("a/", 63) + "b", strings.Repeat("é", 127),
		strings.Repeat(strings.Repeat("a", 255)+"/", 15) + strings.Repeat("b", 255),
	} {
		if err := CheckName(name); err != nil {
			t.Errorf("CheckName(%q) = %v, want nil", name, err)
		}
	}
}

func TestErrorsClipLongNames(t *testing.T) {
	if err := CheckName(strings.Repeat("a/", 4096)); err == nil || len(err.Error()) > 512 {
		t.Errorf("error has %d bytes, want at most 512: %v", len(fmt.Sprint(err)), err)
	}
}

func TestPathsClash(t *testing.T) {
	cases := map[string]struct {
		names []string // in byte order
		clash bool
	}{
		"none":                          {names: nil},
		"apart":                         {names: []string{"a", "b", "c/d", "c/e", "f/d"}},
		"files by case":                 {names: []string{"A", "a"}, clash: true},
		"files by case, deep":           {names: []string{"x/y/A.txt", "x/y/a.TXT"}, clash: true},
		"folders by case":               {names: []string{"A/x", "a/y"}, clash: true},
		"folders by case, deep":         {names: []string{"x/A/1", "x/B/1", "x/a/2"}, clash: true},
		"folder and file by case":       {names: []string{"A/x", "a"}, clash: true},
		"file and folder by case":       {names: []string{"A", "a/x"}, clash: true},
		"file is a folder":              {names: []string{"a", "a/b"}, clash: true},
		"file is a folder, apart":       {names: []string{"a", "a-b", "a.b", "a/b"}, clash: true},
		"file is a deep folder":         {names: []string{"a/b/c", "a/b/c/d/e"}, clash: true},
		"folder again below another":    {names: []string{"a/a", "a/b/a", "b/a/a"}},
		"prefix but no folder":          {names: []string{"ab", "ab.c/d", "abc", "abc-d/e"}},
		"same folder after a sibling":   {names: []string{"a/b/1", "a/b-c", "a/b/2"}, clash: false},
		"greek sigmas":                  {names: []string{"Σ", "ς"}, clash: true},
		"kelvin and k":                  {names: []string{"k", "\u212a"}, clash: true},
		"sharp s by case":               {names: []string{"ß", "ẞ"}, clash: true},
		"umlauts by case":               {names: []string{"Ä/x", "ä/x"}, clash: true},
		"long s and s":                  {names: []string{"S/x", "ſ/y"}, clash: true},
		"cyrillic by case":              {names: []string{"Ж", "ж"}, clash: true},
		"dotted i is a letter":          {names: []string{"i", "İ", "ı"}},
		"fold shortens before the dash": {names: []string{"k/a", "k/b", "\u212a"}, clash: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var files []File
			for _, n := range c.names {
				files = append(files, File{Name: n})
			}
			if name == "same folder after a sibling" { // byte order has the dash first
				files[0], files[1] = files[1], files[0]
			}
			if err := checkPaths(files); (err != nil) != c.clash {
				t.Errorf("checkPaths(%q) = %v, want a clash: %t", c.names, err, c.clash)
			}
		})
	}
}

func FuzzName(f *testing.F) {
	for _, names := range badNames {
		for _, name := range names {
			f.Add(name)
		}
	}
	f.Add("dir/a.cab")
	f.Add(strings.Repeat("a/", 63) + "b")
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName(name) != nil {
			return
		}
		parts := strings.Split(name, "/")
		if len(name) > MaxName || len(parts) > MaxDepth || !utf8.ValidString(name) {
			t.Errorf("CheckName allows %q: %d bytes, %d parts", name, len(name), len(parts))
		}
		for _, part := range parts {
			if part == "" || len(part) > MaxPart || strings.Trim(part, ".") == "" || strings.ContainsAny(part, "\\:<>\"|?*\x00\x1f\x7f\u0085") || strings.HasSuffix(part, ".") || strings.HasSuffix(part, " ") {
				t.Errorf("CheckName allows the part %q", part)
			}
		}
		if !strings.EqualFold(foldName(name), name) {
			t.Errorf("foldName(%q) = %q, which differs in more than letter case", name, foldName(name))
		}
		if up := strings.ToUpper(name); strings.EqualFold(up, name) && foldName(up) != foldName(name) {
			t.Errorf("foldName(%q) = %q, of its upper case %q", name, foldName(name), foldName(up))
		}
	})
}
