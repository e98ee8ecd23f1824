package expected

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"freshet/internal/content"
)

// Limits of a directory.
const (
	MaxDirFiles = 10_000   // *.xml
	MaxDirSize  = 64 << 20 // bytes of them together
)

// settled is how old a file's change must be before size and time of change tell that it was
// not written again; file systems keep times as coarse as 2 s (FAT).
const settled = 3 * time.Second

// Files is the provider "xml": the documents of one file, or of the *.xml files of a
// directory, not of those below it. Every lookup reads what changed since the last one. Who
// writes a file should write another and rename it: a half-written one is an error, and until
// it is whole nothing is known of contents that no other file names.
type Files struct {
	path string

	mu   sync.Mutex           // guards the following
	read map[string]*readFile // by name
}

// readFile is what a file said when it was read.
type readFile struct {
	info   fs.FileInfo
	at     time.Time // of reading
	source source
}

// NewFiles returns the provider of a file or directory. It need not exist yet; until it does,
// lookups are errors.
func NewFiles(path string) *Files {
	return &Files{path: path, read: make(map[string]*readFile)}
}

// Lookup returns what the files say of ref; [ErrNone] when they say nothing.
func (f *Files) Lookup(ctx context.Context, ref content.Ref) (Content, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		return Content{}, fmt.Errorf("expected: look up %s: %w", ref, err)
	}
	if !info.IsDir() {
		s := f.refresh(f.path, info, os.Open)
		return lookup([]source{s}, ref)
	}
	sources, err := f.directory(ctx)
	if err != nil {
		return Content{}, fmt.Errorf("expected: look up %s: %w", ref, err)
	}
	return lookup(sources, ref)
}

// directory reads the files of f.path that changed and forgets those that went. No link leads
// out of the directory.
func (f *Files) directory(ctx context.Context) ([]source, error) {
	root, err := os.OpenRoot(f.path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	names, err := xmlNames(root)
	if err != nil {
		return nil, err
	}
	var size int64
	sources := make([]source, 0, len(names))
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		info, err := root.Stat(name)
		if errors.Is(err, fs.ErrNotExist) { // it went since it was listed
			continue
		}
		if err != nil {
			sources = append(sources, source{name: fmt.Sprintf("%q", name), err: err})
			continue
		}
		if size += info.Size(); size > MaxDirSize {
			return nil, fmt.Errorf("directory %q has more than %d bytes of metadata", f.path, MaxDirSize)
		}
		sources = append(sources, f.refresh(name, info, root.Open))
	}
	for name := range f.read {
		if _, found := slices.BinarySearch(names, name); !found {
			delete(f.read, name)
		}
	}
	return sources, nil
}

// xmlNames lists the *.xml files of root in byte order.
func xmlNames(root *os.Root) ([]string, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var names []string
	for {
		entries, err := dir.ReadDir(256)
		for _, e := range entries {
			if !e.IsDir() && strings.EqualFold(filepath.Ext(e.Name()), ".xml") {
				names = append(names, e.Name())
			}
		}
		if len(names) > MaxDirFiles {
			return nil, fmt.Errorf("directory %q has more than %d files of metadata", root.Name(), MaxDirFiles)
		}
		if errors.Is(err, io.EOF) {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// refresh returns what a file says, read again if it may have changed.
func (f *Files) refresh(name string, info fs.FileInfo, open func(string) (*os.File, error)) source {
	was := f.read[name]
	if was != nil && os.SameFile(was.info, info) && was.info.Size() == info.Size() &&
		was.info.ModTime().Equal(info.ModTime()) && was.at.Sub(info.ModTime()) > settled {
		return was.source
	}
	now := &readFile{info: info, at: time.Now(), source: source{name: fmt.Sprintf("%q", name)}}
	now.source.text, now.source.err = readXML(name, info, open)
	f.read[name] = now
	return now.source
}

// readXML parses one regular file.
func readXML(name string, info fs.FileInfo, open func(string) (*os.File, error)) (text, error) {
	if !info.Mode().IsRegular() { // opening a pipe would wait for its writer
		return text{}, errors.New("it is no regular file")
	}
	file, err := open(name)
	if err != nil {
		return text{}, err
	}
	defer file.Close()
	return parse(file)
}
