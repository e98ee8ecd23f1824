// Package blob keeps bytes of content at rest: manifests and hash files by digest
// ([Files]), directories turned into manifests ([HashTree]), and ranges of a content's
// concatenation read from its directory ([Tree]).
//
// Nothing here trusts a file because of its name: what is read by digest is hashed again,
// and what is read from a directory is given out only while the file's size, mtime and
// ctime are those it had when it was hashed.
//
// # Layout of Files
//
//	DIR/manifests/<manifest digest, hex>    the manifest's bytes
//	DIR/hashfiles/<HashOfHashes, hex>       the hash file's raw form
//
// A name appears by rename, after its bytes are synced; the directory is synced after it.
// Names that begin with ".tmp-" are unfinished writes and are removed at opening.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"freshet/internal/content"
)

const (
	manifestsDir = "manifests"
	hashFilesDir = "hashfiles"
	tempPrefix   = ".tmp-"

	maxRaw = content.MaxPieces * len(content.Digest{}) // bytes of a hash file's raw form
)

// Files holds manifests and hash files by digest in a directory. Its methods may be called
// from many goroutines of one process.
type Files struct {
	root *os.Root
}

// OpenFiles opens dir, which is made (mode 0700) when it is missing.
func OpenFiles(dir string) (*Files, error) {
	for _, d := range []string{dir, filepath.Join(dir, manifestsDir), filepath.Join(dir, hashFilesDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("blob: open %q: %w", dir, err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("blob: open %q: %w", dir, err)
	}
	f := &Files{root: root}
	if err := f.sweep(); err != nil {
		root.Close()
		return nil, fmt.Errorf("blob: open %q: %w", dir, err)
	}
	return f, nil
}

// sweep removes what an interrupted write left behind.
func (f *Files) sweep() error {
	for _, d := range []string{manifestsDir, hashFilesDir} {
		entries, err := fs.ReadDir(f.root.FS(), d)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), tempPrefix) {
				continue
			}
			if err := f.root.Remove(d + "/" + e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// Close releases the directory.
func (f *Files) Close() error { return f.root.Close() }

// PutManifest keeps b, which is not parsed, and returns its digest.
func (f *Files) PutManifest(b []byte) (content.Digest, error) {
	d := content.DigestOf(b)
	if len(b) > content.MaxManifest {
		return d, fmt.Errorf("blob: put manifest %s: %d bytes are more than %d", d.Short(), len(b), content.MaxManifest)
	}
	return d, f.put(manifestsDir, "manifest", d, b)
}

// Manifest returns the manifest with digest d, or an error that is fs.ErrNotExist. Bytes
// that no longer have that digest are removed and reported.
func (f *Files) Manifest(ctx context.Context, d content.Digest) ([]byte, error) {
	return f.get(ctx, manifestsDir, "manifest", d)
}

// PutHashFile keeps a hash file's raw form, 32 bytes a piece, and returns its HashOfHashes.
func (f *Files) PutHashFile(raw []byte) (content.Digest, error) {
	d := content.DigestOf(raw) // the HashOfHashes is the SHA-256 over the raw piece hashes
	if len(raw)%len(d) != 0 || len(raw) > maxRaw {
		return d, fmt.Errorf("blob: put hash file %s: %d bytes are no list of %d-byte hashes of at most %d bytes", d.Short(), len(raw), len(d), maxRaw)
	}
	return d, f.put(hashFilesDir, "hash file", d, raw)
}

// HashFile returns the raw form of the hash file with this HashOfHashes, or an error that
// is fs.ErrNotExist.
func (f *Files) HashFile(ctx context.Context, hashOfHashes content.Digest) ([]byte, error) {
	return f.get(ctx, hashFilesDir, "hash file", hashOfHashes)
}

// Remove forgets the manifest with digest d; one that is not held is no error. Hash files
// stay, because other contents may share them.
func (f *Files) Remove(d content.Digest) error {
	err := f.root.Remove(manifestsDir + "/" + d.String())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob: remove manifest %s: %w", d, err)
	}
	return nil
}

func (f *Files) get(ctx context.Context, dir, what string, d content.Digest) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("blob: read %s %s: %w", what, d, err)
	}
	name := dir + "/" + d.String()
	b, err := f.read(name)
	if err != nil {
		return nil, fmt.Errorf("blob: read %s %s: %w", what, d, err)
	}
	if content.DigestOf(b) != d {
		f.root.Remove(name) // best effort: the next put writes it anew
		return nil, fmt.Errorf("blob: read %s %s: %w: the stored bytes have rotted and were removed", what, d, fs.ErrNotExist)
	}
	return b, nil
}

func (f *Files) read(name string) ([]byte, error) {
	file, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > int64(max(content.MaxManifest, maxRaw)) {
		return nil, fmt.Errorf("%q is not one of our files (mode %v, %d bytes)", name, st.Mode(), st.Size())
	}
	b := make([]byte, st.Size())
	_, err = io.ReadFull(file, b)
	return b, err
}

func (f *Files) put(dir, what string, d content.Digest, b []byte) error {
	name := dir + "/" + d.String()
	if old, err := f.read(name); err == nil && content.DigestOf(old) == d {
		return nil
	}
	if err := writeAtomic(f.root, name, b); err != nil {
		return fmt.Errorf("blob: put %s %s: %w", what, d, err)
	}
	return nil
}
