package testbed

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"freshet/internal/blob"
	"freshet/internal/content"
)

// version is that of every content.
const version = 1

// ref is how agents call a content.
func ref(content string) string { return content + "@" + strconv.Itoa(version) }

// recipe says what a content's files are: bytes that are the same in each run, and that nothing
// can compress.
type recipe struct {
	name    string
	size    int64
	files   int
	changes []float64 // of each later issue: the share of each file, from its start, that is new
}

// issue is what was published at one time under a content's name.
type issue struct {
	size     int64
	files    map[string][sha256.Size]byte // as written, by name
	manifest *content.Manifest
	digest   content.Digest // of the manifest
	hashFile *content.HashFile
	stamps   []blob.Stamp
}

// published is a content.
type published struct {
	recipe
	signed bool
	issues []*issue // the last one is published
}

// current returns the issue that is published.
func (p *published) current() *issue { return p.issues[len(p.issues)-1] }

// write makes the files of the recipe's last issue in dir. Each appears whole, in place of the
// old one, so that who reads the directory sees no other bytes than those of an issue.
func (r recipe) write(ctx context.Context, dir string) (*issue, error) {
	is := &issue{size: r.size, files: map[string][sha256.Size]byte{}}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("testbed: %w", err)
	}
	staged := dir + ".new"
	for i := range r.files {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		name := fmt.Sprintf("file-%05d", i+1)
		sum, err := writeFile(staged, r.file(i))
		if err == nil {
			err = os.Rename(staged, filepath.Join(dir, name))
		}
		if err != nil {
			return nil, err
		}
		is.files[name] = sum
	}
	var err error
	is.manifest, is.hashFile, is.stamps, err = blob.HashTree(ctx, dir, blob.HashOptions{Ref: content.Ref{ID: content.ID(r.name), Version: version}})
	if err != nil {
		return nil, err
	}
	is.digest = content.DigestOf(content.AppendManifest(nil, is.manifest))
	return is, nil
}

// file is the bytes of file i, from 0.
func (r recipe) file(i int) io.Reader {
	n := r.size*int64(i+1)/int64(r.files) - r.size*int64(i)/int64(r.files)
	all := random(fmt.Sprintf("%s/%d", r.name, i))
	for k, share := range r.changes {
		head := int64(share * float64(n))
		all = io.MultiReader(io.LimitReader(random(fmt.Sprintf("%s/%d/%d", r.name, i, k)), head), skip(all, head))
	}
	return io.LimitReader(all, n)
}

// random is an endless stream that hangs on seed alone.
func random(seed string) io.Reader {
	key := sha256.Sum256([]byte(seed))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("testbed: AES takes no key of 32 bytes: " + err.Error())
	}
	return cipher.StreamReader{S: cipher.NewCTR(block, make([]byte, aes.BlockSize)), R: zeros{}}
}

// skip is r without its first n bytes.
func skip(r io.Reader, n int64) io.Reader { return &skipper{r, n} }

type skipper struct {
	r io.Reader
	n int64
}

func (s *skipper) Read(b []byte) (int, error) {
	if s.n > 0 {
		if _, err := io.CopyN(io.Discard, s.r, s.n); err != nil {
			return 0, err
		}
		s.n = 0
	}
	return s.r.Read(b)
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func writeFile(name string, from io.Reader) (sum [sha256.Size]byte, err error) {
	f, err := os.Create(name)
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), from)
	h.Sum(sum[:0])
	return sum, errors.Join(err, f.Close())
}

// metadata writes the first n files of an issue as a management system would expect them.
func (is *issue) metadata(n int) ([]byte, error) {
	type file struct {
		XMLName   xml.Name `xml:"FileContent"`
		Name      string   `xml:",attr"`
		Hash      string   `xml:",attr"`
		Algorithm string   `xml:"HashAlgorithm,attr"`
		Size      int64    `xml:",attr"`
	}
	doc := struct {
		XMLName xml.Name `xml:"Content"`
		ID      string   `xml:"ContentId,attr"`
		Version int      `xml:",attr"`
		Files   []file
	}{ID: string(is.manifest.Ref.ID), Version: version}
	for _, f := range is.manifest.Files[:n] {
		doc.Files = append(doc.Files, file{Name: f.Name, Hash: f.SHA1.String(), Algorithm: "SHA1", Size: f.Size})
	}
	return xml.MarshalIndent(doc, "", "  ")
}

// same returns an error unless the files below dir are those of the issue.
func (is *issue) same(ctx context.Context, dir string) error {
	n := 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		want, ok := is.files[filepath.ToSlash(rel)]
		if !ok {
			return fmt.Errorf("%q was not published", rel)
		}
		n++
		got, err := hashFile(name)
		if err == nil && got != want {
			err = fmt.Errorf("%q has other bytes", rel)
		}
		return err
	})
	if err == nil && n != len(is.files) {
		err = fmt.Errorf("%d files of %d", n, len(is.files))
	}
	return err
}

func hashFile(name string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	h.Sum(sum[:0])
	return sum, err
}
