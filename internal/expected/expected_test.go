package expected

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"freshet/internal/api"
	"freshet/internal/content"
)

const (
	// cutSample is the sample of Nomad's description as it stands there: without its end tag.
	cutSample = `<Content ContentId="c54879c8-215e-413f-afbf-a701afa2d637" Version="1">
<FileContent Name="18362.30.190401-1528.19h1_release_svc_refresh_CLIENTBUSINESS_VOL_x86FRE_en-us.esd" Hash="1F01343ACDE39AE567FF520F9FC51DC2F9507305" HashAlgorithm="SHA1" Size="2345415546"/> <FileContent Name="WindowsUpdateBox.exe" Hash="A215D07C5B28BA2270D9E2F54FB51C1010777762" HashAlgorithm="SHA1" Size="19524440"/>
`
	sample     = cutSample + "</Content>"
	sampleHash = "f1676fb214d0b2e847514c07f18cd06a7bf10251e1f65db698a0b3ce7bf5d76b"

	kb     = `<Content ContentId="fbb5724a-aa0f-47f9-908a-47068fd8ad6f" Version="1"><FileContent Name="windows6.1-kb2705219-v2-x64.cab" Hash="8E8E0175D46B5A8D52C4856FA3D282FAA12ACD63" HashAlgorithm="SHA1" Size="199093"/></Content>`
	kbHash = "e2036040fd5468d5ca4c3f23e29133e7a813c9dd08b63a2e906bdde161b531b5"

	one = `<Content ContentId="a" Version="1"><FileContent Name="f" Hash="8E8E0175D46B5A8D52C4856FA3D282FAA12ACD63" HashAlgorithm="SHA1" Size="1"/></Content>`
)

// TestSeedSample reads the sample with its end tag; its MetadataHash is design's vector.
func TestSeedSample(t *testing.T) {
	got, err := Parse(strings.NewReader(sample))
	if err != nil || len(got) != 1 {
		t.Fatalf("Parse = %+v, %v", got, err)
	}
	c := got[0]
	if want := (content.Ref{ID: "c54879c8-215e-413f-afbf-a701afa2d637", Version: 1}); c.Ref != want || len(c.Files) != 2 {
		t.Errorf("Parse = %v with %d files, want %v with 2", c.Ref, len(c.Files), want)
	}
	digest, _ := hex.DecodeString("A215D07C5B28BA2270D9E2F54FB51C1010777762")
	want := FileContent{Name: "WindowsUpdateBox.exe", Algorithm: content.SHA1Algorithm, Digest: digest, Size: 19524440}
	if !reflect.DeepEqual(c.Files[1], want) {
		t.Errorf("second file %+v, want %+v", c.Files[1], want)
	}
	if hash, err := c.MetadataHash(); err != nil || hash.String() != sampleHash {
		t.Errorf("MetadataHash = %v, %v, want %s", hash, err, sampleHash)
	}
}

// TestQuestion: a distribution point is asked for the files by name, hash and size, and to read them.
func TestQuestion(t *testing.T) {
	c := Content{Files: []FileContent{
		{Name: `Dir\A.cab`, Algorithm: content.SHA1Algorithm, Digest: []byte{0, 0xab}, Size: 3},
		{Name: "b", Algorithm: content.SHA256Algorithm, Digest: []byte{1}},
	}}
	want := api.LszRequest{Match: "subset", Force: true, Files: []api.ExpectedFile{
		{Name: `Dir\A.cab`, Algorithm: "SHA1", Digest: "00ab", Size: 3}, {Name: "b", Algorithm: "SHA256", Digest: "01"},
	}}
	if got := c.Question(content.Subset); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestCutSampleIsRefused(t *testing.T) {
	_, err := Parse(strings.NewReader(cutSample))
	const want = `the text is cut short: </Content> of content "c54879c8-215e-413f-afbf-a701afa2d637@1" is missing`
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Parse = %v, want an error with %q", err, want)
	}
}

// TestEveryPrefixIsRefused cuts the text everywhere but where a document is whole.
func TestEveryPrefixIsRefused(t *testing.T) {
	in := "SDMPackage:" + kb + "\n"
	for n := range in {
		if got, err := Parse(strings.NewReader(in[:n])); err == nil && n < len(in)-1 {
			t.Errorf("the first %d bytes are %+v", n, got)
		}
	}
	two := sample + kb
	for n := len(sample) + 1; n < len(two); n++ {
		if got, err := Parse(strings.NewReader(two[:n])); err == nil {
			t.Errorf("the first %d bytes are %+v", n, got)
		}
	}
}

// TestSpellings reads one document in many spellings; all mean the same.
func TestSpellings(t *testing.T) {
	file := kb[strings.Index(kb, "<File"):strings.Index(kb, "</Content")]
	for name, in := range map[string]string{
		"as logged":            kb,
		"prefix":               "SDMPackage:" + kb,
		"prefix and blanks":    " \r\n SDMPackage: \n" + kb + "\r\n",
		"declaration":          `<?xml version="1.0" encoding="utf-8"?>` + "\n" + kb,
		"byte order mark":      "\ufeff" + kb,
		"comment":              "<!-- a -->" + strings.Replace(kb, "<File", "<!-- b --><File", 1),
		"end tag":              strings.Replace(kb, `/></Content>`, `></FileContent></Content >`, 1),
		"lower-case hex":       strings.Replace(kb, "8E8E0175D46B5A8D52C4856FA3D282FAA12ACD63", "8e8e0175d46b5a8d52c4856fa3d282faa12acd63", 1),
		"single quotes":        strings.ReplaceAll(kb, `"`, `'`),
		"other letter case":    strings.Replace(kb, "windows6", "WINDOWS6", 1),
		"character references": strings.Replace(kb, "windows6", "&#119;indows&#x36;", 1),
		"leading dot":          strings.Replace(kb, "windows6", `.\windows6`, 1),
		"unknown attribute":    strings.Replace(kb, "Size=", `xmlns:a="b" Flags="7" Size=`, 1),
		"unknown elements":     strings.Replace(kb, "<File", `<New><Newer a="b">text</Newer></New><File`, 1),
		"attribute order":      strings.Replace(kb, file, `<FileContent Size="199093" HashAlgorithm="SHA1" Hash="8E8E0175D46B5A8D52C4856FA3D282FAA12ACD63" Name="windows6.1-kb2705219-v2-x64.cab"/>`, 1),
	} {
		got, err := Parse(iotest.OneByteReader(strings.NewReader(in)))
		if err != nil || len(got) != 1 {
			t.Errorf("%s: Parse = %+v, %v", name, got, err)
			continue
		}
		if hash, err := got[0].MetadataHash(); err != nil || hash.String() != kbHash {
			t.Errorf("%s: MetadataHash = %v, %v, want %s", name, hash, err, kbHash)
		}
	}
}

func TestSeveralDocuments(t *testing.T) {
	sha256 := strings.Repeat("aB", 32)
	third := `<Content ContentId="x" Version="7"><FileContent Name="d\a &amp; b.cab" Hash="` + sha256 + `" HashAlgorithm="SHA-256" Size="0"/>` +
		`<FileContent Name="d/c" Hash="` + sha256 + `" HashAlgorithm="SHA256" Size="8796093022208"/></Content>`
	got, err := Parse(strings.NewReader("SDMPackage:" + sample + "\nSDMPackage:" + kb + third))
	if err != nil || len(got) != 3 {
		t.Fatalf("Parse = %+v, %v, want three contents", got, err)
	}
	if got[1].Ref.ID != "fbb5724a-aa0f-47f9-908a-47068fd8ad6f" || got[2].Ref.Version != 7 {
		t.Errorf("contents %v, %v", got[1].Ref, got[2].Ref)
	}
	files := got[2].Files
	if files[0].Name != `d\a & b.cab` || files[0].Algorithm != content.SHA256Algorithm || files[1].Algorithm != content.SHA256Algorithm || files[1].Size != content.MaxSize {
		t.Errorf("files %+v", files)
	}
}

func TestParseRefuses(t *testing.T) {
	const file = `<FileContent Name="f" Hash="8E8E0175D46B5A8D52C4856FA3D282FAA12ACD63" HashAlgorithm="SHA1" Size="1"/>`
	if !strings.Contains(one, file) {
		t.Fatal("the table's document has changed")
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"nothing":               {one, "", "no <Content>"},
		"blanks":                {one, " \n ", "no <Content>"},
		"prefix alone":          {one, "SDMPackage:", "cut short after its SDMPackage prefix"},
		"prefix at the end":     {one, one + "SDMPackage:", "cut short after its SDMPackage prefix"},
		"prefix twice":          {one, "SDMPackage:SDMPackage:" + one, "text"},
		"prefix inside":         {file, "SDMPackage:" + file, "text"},
		"other prefix":          {one, "Content Text = " + one, `the text "Content Text =" is not allowed`},
		"text behind":           {one, one + "x", "text"},
		"text inside":           {file, "x" + file, "text"},
		"text in a file":        {"/></Content>", ">x</FileContent></Content>", "text"},
		"CDATA":                 {file, "<![CDATA[x]]>" + file, "text"},
		"document type":         {one, `<!DOCTYPE Content>` + one, "directive is not allowed"},
		"entity declared":       {one, `<!DOCTYPE c [<!ENTITY f "g">]>` + one, "directive is not allowed"},
		"unknown entity":        {`Name="f"`, `Name="&f;"`, "invalid character entity"},
		"external entity":       {one, `<!DOCTYPE c [<!ENTITY f SYSTEM "file:///etc/passwd">]>` + one, "directive is not allowed"},
		"instruction":           {one, `<?xml-stylesheet href="a"?>` + one, "instruction <?xml-stylesheet?>"},
		"declaration inside":    {file, `<?xml version="1.0"?>` + file, "instruction <?xml?>"},
		"declared UTF-16":       {one, `<?xml version="1.0" encoding="utf-16"?>` + one, "save it as UTF-8"},
		"no UTF-8":              {`Name="f"`, "Name=\"\xff\"", "invalid UTF-8"},
		"other root":            {one, "<Contents>" + one + "</Contents>", "<Contents> is not allowed here"},
		"file without content":  {one, file, "<FileContent> is not allowed here"},
		"content in a content":  {file, file + one, "<Content> is not allowed here"},
		"file in an unknown":    {file, "<New>" + file + "</New>", "<FileContent> is not allowed here"},
		"namespace":             {`<Content C`, `<a:Content C`, "<a:Content> is not allowed here"},
		"letter case":           {`<Content C`, `<content C`, "<content> is not allowed here"},
		"too deep":              {file, strings.Repeat("<a>", 32) + strings.Repeat("</a>", 32) + file, "more than 32 deep"},
		"end too early":         {one, "</Content>" + one, "</Content> closes nothing"},
		"wrong end tag":         {"</Content>", "</Contents>", "</Contents> closes nothing"},
		"no file":               {file, "", "unknown"},
		"file twice":            {file, file + file, "twice"},
		"file twice by case":    {file, file + strings.Replace(file, `"f"`, `"F"`, 1), "twice"},
		"file twice by slash":   {file, strings.Replace(file, `"f"`, `"a/f"`, 1) + strings.Replace(file, `"f"`, `"a\f"`, 1), "twice"},
		"content twice":         {one, one + one, `content "a@1" comes twice`},
		"no id":                 {`ContentId="a" `, ``, "ContentId is missing"},
		"bad id":                {`"a"`, `"a/b"`, "not allowed"},
		"no version":            {` Version="1"`, ``, "Version is missing"},
		"version 0":             {`Version="1"`, `Version="0"`, `version "0"`},
		"no name":               {`Name="f" `, ``, "Name is missing"},
		"empty name":            {`Name="f"`, `Name=""`, "empty part"},
		"climbing name":         {`Name="f"`, `Name="..\..\f"`, `the part ".."`},
		"drive":                 {`Name="f"`, `Name="C:\f"`, "the character ':'"},
		"no hash":               {`Hash="8E8E0175D46B5A8D52C4856FA3D282FAA12ACD63" `, ``, "Hash is missing"},
		"short hash":            {`8E8E`, `8E`, "is not the 40 hex digits of a SHA1"},
		"no hex":                {`8E8E`, `8G8E`, "is not the 40 hex digits of a SHA1"},
		"hash of another":       {`"SHA1"`, `"SHA256"`, "is not the 64 hex digits of a SHA256"},
		"unknown algorithm":     {`"SHA1"`, `"MD5"`, `"MD5" is not known`},
		"no algorithm":          {` HashAlgorithm="SHA1"`, ``, "HashAlgorithm is missing"},
		"no size":               {` Size="1"`, ``, "Size is missing"},
		"negative size":         {`Size="1"`, `Size="-1"`, `size "-1"`},
		"size with sign":        {`Size="1"`, `Size="+1"`, `size "+1"`},
		"size over the limit":   {`Size="1"`, `Size="8796093022209"`, "size"},
		"size of 20 digits":     {`Size="1"`, `Size="18446744073709551616"`, "size"},
		"attribute twice":       {`Size="1"`, `Size="1" Size="1"`, "Size twice"},
		"attribute not quoted":  {`Size="1"`, `Size=1`, "unquoted"},
		"cut inside a tag":      {one, one + "<Cont", "cut short inside a tag"},
		"cut inside a comment":  {one, one + "<!-- ", "cut short inside a tag"},
		"UTF-16":                {one, "\xff\xfe<\x00C\x00", "UTF-16"},
		"UTF-16, other order":   {one, "\xfe\xff\x00<\x00C", "UTF-16"},
		"not closed, then more": {"</Content>", kb, "<Content> is not allowed here"},
	} {
		t.Run(name, func(t *testing.T) {
			in := strings.Replace(one, c.old, c.new, 1)
			if in == one {
				t.Fatalf("%q is not in the document", c.old)
			}
			got, err := Parse(strings.NewReader(in))
			if err == nil || got != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Parse = %+v, %v, want an error with %q", got, err, c.want)
			}
		})
	}
}

func TestErrorNamesTheLine(t *testing.T) {
	if _, err := Parse(strings.NewReader("\n\n" + strings.Replace(one, "SHA1", "MD5", 1))); err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("Parse = %v, want line 3", err)
	}
}

// endless is a text without an end; reading past the limit fails the test.
type endless struct {
	t    *testing.T
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.read += len(p); e.read > 2*MaxSize {
		e.t.Fatal("Parse reads past the limit")
	}
	return copy(p, bytes.Repeat([]byte(" "), len(p))), nil
}

func TestParseLimits(t *testing.T) {
	if _, err := Parse(&endless{t: t}); err == nil || !strings.Contains(err.Error(), "more than 4194304 bytes") {
		t.Errorf("Parse of an endless text = %v", err)
	}
	full := one + strings.Repeat(" ", MaxSize-len(one))
	if got, err := Parse(strings.NewReader(full)); err != nil || len(got) != 1 {
		t.Errorf("Parse of %d bytes = %+v, %v", len(full), got, err)
	}
	deep := strings.Replace(one, "<File", strings.Repeat("<a>", MaxDepth-1)+strings.Repeat("</a>", MaxDepth-1)+"<File", 1)
	if _, err := Parse(strings.NewReader(deep)); err != nil {
		t.Errorf("Parse of %d levels = %v", MaxDepth, err)
	}
	broken := errors.New("broken")
	if _, err := Parse(io.MultiReader(strings.NewReader(one), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("Parse of a broken reader = %v", err)
	}
}

// write spells contents again.
func write(contents []Content) string {
	var b strings.Builder
	for _, c := range contents {
		fmt.Fprintf(&b, `<Content ContentId="%s" Version="%d">`, c.Ref.ID, c.Ref.Version)
		for _, f := range c.Files {
			name := strings.NewReplacer("&", "&amp;", "<", "&lt;", `"`, "&quot;").Replace(f.Name)
			fmt.Fprintf(&b, `<FileContent Name="%s" Hash="%X" HashAlgorithm="%s" Size="%d"/>`, name, f.Digest, f.Algorithm, f.Size)
		}
		b.WriteString("</Content>\n")
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{sample, cutSample, kb, one, "SDMPackage:" + kb + one, `<!DOCTYPE a>` + one, `<?xml version="1.0"?>` + one} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Parse(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := Parse(strings.NewReader(write(got)))
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("written and read again: %+v, %v, want %+v", again, err, got)
		}
	})
}
