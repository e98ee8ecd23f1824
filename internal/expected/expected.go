// Package expected reads what a management system says that the files of a content must be:
// Configuration Manager's metadata (WMI class DownloadInfoEx2). Its providers are [Files]
// ("xml") and [CCM] ("ccm").
//
//	<Content ContentId="ID" Version="1">
//	  <FileContent Name="dir\a.cab" Hash="HEX" HashAlgorithm="SHA1" Size="123"/>
//	</Content>
//
// A text holds one such document or several, each with an optional "SDMPackage:" before it,
// in UTF-8, at most [MaxSize] bytes, elements at most [MaxDepth] deep. HashAlgorithm is SHA1,
// SHA256 or SHA-256, Hash hex in either letter case, Size bytes. Unknown attributes, and
// unknown elements inside a Content that hold no Content or FileContent, are passed over
// with their text.
// Everything else is an error: a document type or other directive, an entity that XML does
// not predefine, other text, an attribute that is missing or comes twice, a file named twice, no
// file at all, one content twice, and a document that is cut short.
//
// To [Parse] each of them is one of the whole text. To the providers, what is wrong with a file
// or files of a content whose id and version are read is an error of that content alone, and a
// document without files says nothing.
package expected

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"freshet/internal/api"
	"freshet/internal/content"
)

// Limits of a text.
const (
	MaxSize  = 4 << 20 // bytes
	MaxDepth = 32      // elements, one inside the other
)

// FileContent is what one file must be.
type FileContent struct {
	Name      string // as written; content.FoldName makes it comparable
	Algorithm content.Algorithm
	Digest    []byte // Algorithm.Size() bytes
	Size      int64  // bytes
}

// Content is what the files of one content must be.
type Content struct {
	Ref   content.Ref
	Files []FileContent // at least one, no two of one folded name
}

// Entries returns the names and hashes of c, as [content.Compare] takes them.
func (c Content) Entries() []content.MetadataEntry {
	entries := make([]content.MetadataEntry, len(c.Files))
	for i, f := range c.Files {
		entries[i] = content.MetadataEntry{Algorithm: f.Algorithm, Digest: f.Digest, Name: f.Name}
	}
	return entries
}

// Question returns what a distribution point is asked: to make sure that it has these files.
func (c Content) Question(match content.Match) api.LszRequest {
	q := api.LszRequest{Match: match.String(), Force: true}
	for _, f := range c.Files {
		q.Files = append(q.Files, api.ExpectedFile{
			Name: f.Name, Algorithm: f.Algorithm.String(), Digest: hex.EncodeToString(f.Digest), Size: api.Number(f.Size),
		})
	}
	return q
}

// MetadataHash returns Nomad's hash over the names and hashes of c (content.MetadataHash).
func (c Content) MetadataHash() (content.Digest, error) { return content.MetadataHash(c.Entries()) }

// Algorithm returns the algorithm of all hashes of c, 0 where there are several: then no
// question can name one, and a device asks by the manifest digest instead.
func (c Content) Algorithm() content.Algorithm {
	var alg content.Algorithm
	for _, f := range c.Files {
		if alg != 0 && f.Algorithm != alg {
			return 0
		}
		alg = f.Algorithm
	}
	return alg
}

// Parse reads all documents of a text. An error names the line and what is wrong there; then
// nothing of the text is returned.
func Parse(r io.Reader) ([]Content, error) {
	t, err := parse(r)
	switch {
	case t.first != nil:
		return nil, t.first
	case err != nil:
		return nil, err
	}
	return t.contents, nil
}

// text is what was read of one.
type text struct {
	contents []Content
	bad      map[content.Ref]error // contents that it says something wrong of
	first    error                 // thing wrong with a content
	in       content.Ref           // content that an error of the whole text came in; zero: in none
}

// parse reads a text. An error is one of the whole text; then no content of it is returned.
func parse(r io.Reader) (text, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return text{}, fmt.Errorf("expected: read metadata: %w", err)
	}
	if len(b) > MaxSize {
		return text{}, fmt.Errorf("expected: metadata has more than %d bytes", MaxSize)
	}
	if bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) {
		return text{}, errors.New("expected: metadata is UTF-16; save it as UTF-8")
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	p := &parser{dec: xml.NewDecoder(bytes.NewReader(b)), seen: make(map[content.Ref]bool)}
	p.read.bad = make(map[content.Ref]error)
	p.dec.CharsetReader = func(string, io.Reader) (io.Reader, error) { return nil, errors.New("save it as UTF-8") }
	if err := p.run(); err != nil {
		t := text{first: cmp.Or(p.read.first, p.wrong)}
		if len(p.open) > 0 && p.cur.Ref.Version != 0 {
			t.in = p.cur.Ref
		}
		return t, p.here(err)
	}
	return p.read, nil
}

// parser holds where in the text the decoder is.
type parser struct {
	dec    *xml.Decoder
	open   []string // names of the elements that are not closed yet
	prefix bool     // the last thing outside was SDMPackage:
	cur    Content  // the content that open[0] began
	wrong  error    // with cur; nil: nothing so far
	read   text
	seen   map[content.Ref]bool // documents that ended, whatever is in them
}

// here adds the line to an error.
func (p *parser) here(err error) error {
	line, _ := p.dec.InputPos()
	return fmt.Errorf("expected: metadata line %d: %w", line, err)
}

// run reads to the end of the text.
func (p *parser) run() error {
	for {
		tok, err := p.dec.RawToken()
		if errors.Is(err, io.EOF) || isCutShort(err) {
			return p.end(err)
		}
		if err != nil {
			return err
		}
		if err := p.token(tok); err != nil {
			return err
		}
	}
}

// isCutShort reports whether the decoder found the end inside a tag.
func isCutShort(err error) bool {
	var syntax *xml.SyntaxError
	return errors.As(err, &syntax) && syntax.Msg == "unexpected EOF"
}

// end checks that the text may end here.
func (p *parser) end(err error) error {
	switch {
	case len(p.open) > 0:
		return fmt.Errorf("the text is cut short: </%s> of content %q is missing", p.open[len(p.open)-1], p.cur.Ref)
	case isCutShort(err):
		return errors.New("the text is cut short inside a tag")
	case p.prefix:
		return errors.New("the text is cut short after its SDMPackage prefix")
	case len(p.seen) == 0:
		return errors.New("no <Content> in it")
	}
	return nil
}

func (p *parser) token(tok xml.Token) error {
	switch tok := tok.(type) {
	case xml.StartElement:
		return p.start(tok)
	case xml.EndElement:
		return p.close(tagName(tok.Name))
	case xml.CharData:
		return p.chars(string(bytes.TrimSpace(tok)))
	case xml.Comment:
		return nil
	case xml.ProcInst:
		return p.instruction(tok)
	}
	return errors.New("a document type or other <!…> directive is not allowed")
}

// instruction takes an XML declaration before a document, in UTF-8.
func (p *parser) instruction(tok xml.ProcInst) error {
	if tok.Target != "xml" || len(p.open) > 0 {
		return fmt.Errorf("the instruction <?%s?> is not allowed here", tok.Target)
	}
	return nil
}

// chars takes what stands between tags, without blanks around it.
func (p *parser) chars(s string) error {
	switch {
	case s == "", p.inUnknown():
		return nil
	case s == "SDMPackage:" && len(p.open) == 0 && !p.prefix:
		p.prefix = true
		return nil
	}
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return fmt.Errorf("the text %q is not allowed here", s)
}

// inUnknown reports whether the innermost open element is one that is passed over.
func (p *parser) inUnknown() bool {
	if len(p.open) == 0 {
		return false
	}
	last := p.open[len(p.open)-1]
	return last != "Content" && last != "FileContent"
}

func (p *parser) start(tok xml.StartElement) error {
	name := tagName(tok.Name)
	if len(p.open) == MaxDepth {
		return fmt.Errorf("elements are more than %d deep", MaxDepth)
	}
	attrs, err := attributes(tok)
	if err != nil {
		return err
	}
	switch {
	case len(p.open) == 0 && name == "Content":
		p.prefix = false
		err = p.startContent(attrs)
	case len(p.open) == 1 && name == "FileContent":
		p.spoil(p.startFile(attrs))
	case len(p.open) == 0 || name == "Content" || name == "FileContent":
		err = fmt.Errorf("<%s> is not allowed here", name)
	}
	p.open = append(p.open, name)
	return err
}

// spoil notes the first thing that is wrong with the current content.
func (p *parser) spoil(err error) {
	if err != nil && p.wrong == nil {
		p.wrong = p.here(err)
	}
}

func (p *parser) startContent(a attrs) error {
	p.cur, p.wrong = Content{}, nil
	id, err := a.need("ContentId")
	if err != nil {
		return err
	}
	version, err := a.need("Version")
	if err != nil {
		return err
	}
	if p.cur.Ref.ID, err = content.ParseID(id); err != nil {
		return err
	}
	p.cur.Ref.Version, err = content.ParseVersion(version)
	return err
}

func (p *parser) startFile(a attrs) error {
	var f FileContent
	var err error
	if f.Name, err = a.need("Name"); err != nil {
		return err
	}
	if len(p.cur.Files) == content.MaxFiles {
		return fmt.Errorf("content %q has more than %d files", p.cur.Ref, content.MaxFiles)
	}
	if f.Algorithm, f.Digest, err = a.hash(); err != nil {
		return fmt.Errorf("file %q: %w", f.Name, err)
	}
	size, err := a.need("Size")
	if err != nil {
		return fmt.Errorf("file %q: %w", f.Name, err)
	}
	n, err := strconv.ParseUint(size, 10, 63)
	if err != nil || int64(n) > content.MaxSize {
		return fmt.Errorf("file %q: size %q is not a number from 0 to %d", f.Name, size, content.MaxSize)
	}
	f.Size = int64(n)
	p.cur.Files = append(p.cur.Files, f)
	return nil
}

// close takes an end tag; that of a Content ends a document.
func (p *parser) close(name string) error {
	last := len(p.open) - 1
	if last < 0 || p.open[last] != name {
		return fmt.Errorf("</%s> closes nothing", name)
	}
	p.open = p.open[:last]
	if last > 0 {
		return nil
	}
	p.endContent()
	return nil
}

// endContent keeps the content that has ended, or what is wrong with it.
func (p *parser) endContent() {
	ref, silent := p.cur.Ref, p.wrong == nil && len(p.cur.Files) == 0
	if p.seen[ref] {
		p.spoil(fmt.Errorf("content %q comes twice", ref))
		p.read.contents = slices.DeleteFunc(p.read.contents, func(c Content) bool { return c.Ref == ref })
		silent = false
	}
	if _, err := p.cur.MetadataHash(); err != nil {
		p.spoil(fmt.Errorf("content %q: %w", ref, err))
	}
	p.seen[ref] = true
	if p.wrong == nil {
		p.read.contents = append(p.read.contents, p.cur)
		return
	}
	if p.read.first == nil {
		p.read.first = p.wrong
	}
	if !silent {
		p.read.bad[ref] = p.wrong
	}
}

// tagName returns a name as it is written, with its namespace prefix.
func tagName(n xml.Name) string {
	if n.Space == "" {
		return n.Local
	}
	return n.Space + ":" + n.Local
}

// attrs are the attributes of one element.
type attrs map[string]string

// attributes refuses those that come twice, which the decoder does not.
func attributes(tok xml.StartElement) (attrs, error) {
	a := make(attrs, len(tok.Attr))
	for _, attr := range tok.Attr {
		name := tagName(attr.Name)
		if _, dup := a[name]; dup {
			return nil, fmt.Errorf("<%s> has the attribute %s twice", tagName(tok.Name), name)
		}
		a[name] = attr.Value
	}
	return a, nil
}

func (a attrs) need(name string) (string, error) {
	v, ok := a[name]
	if !ok {
		return "", fmt.Errorf("the attribute %s is missing", name)
	}
	return v, nil
}

// hash reads HashAlgorithm and Hash.
func (a attrs) hash() (content.Algorithm, []byte, error) {
	name, err := a.need("HashAlgorithm")
	if err != nil {
		return 0, nil, err
	}
	alg, err := content.ParseAlgorithm(name)
	if err != nil {
		return 0, nil, err
	}
	text, err := a.need("Hash")
	if err != nil {
		return 0, nil, err
	}
	digest, err := hex.DecodeString(text)
	if err != nil || len(digest) != alg.Size() {
		return 0, nil, fmt.Errorf("hash %q is not the %d hex digits of a %s", text, 2*alg.Size(), alg)
	}
	return alg, digest, nil
}
