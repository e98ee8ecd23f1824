package testbed

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// version is that of every content.
const version = 1

// published is a content: its size, and the SHA-256 of its files by their names.
type published struct {
	size  int64
	files map[string][32]byte
}

// ref is how agents call a content.
func ref(content string) string { return content + "@" + strconv.Itoa(version) }

// write makes a content's files: bytes that are the same in each run, and that nothing can
// compress.
func write(ctx context.Context, dir string, s Step) (published, error) {
	p := published{size: s.Size, files: map[string][32]byte{}}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return p, fmt.Errorf("testbed: %w", err)
	}
	key := sha256.Sum256([]byte(s.Content))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return p, err
	}
	random := cipher.StreamReader{S: cipher.NewCTR(block, make([]byte, aes.BlockSize)), R: zeros{}}
	n := int64(s.Files)
	for i := range n {
		if err := ctx.Err(); err != nil {
			return p, context.Cause(ctx)
		}
		name := fmt.Sprintf("file-%05d", i+1)
		size := s.Size*(i+1)/n - s.Size*i/n
		if p.files[name], err = writeFile(filepath.Join(dir, name), io.LimitReader(random, size)); err != nil {
			return p, err
		}
	}
	return p, nil
}

func writeFile(name string, from io.Reader) (sum [32]byte, err error) {
	f, err := os.Create(name)
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), from)
	h.Sum(sum[:0])
	return sum, errors.Join(err, f.Close())
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// same returns an error unless the files below dir are the published ones.
func (p *published) same(ctx context.Context, dir string) error {
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
		want, ok := p.files[filepath.ToSlash(rel)]
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
	if err == nil && n != len(p.files) {
		err = fmt.Errorf("%d files of %d", n, len(p.files))
	}
	return err
}

func hashFile(name string) (sum [32]byte, err error) {
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
