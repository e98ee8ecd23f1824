package content

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// fileFixed is the length of a file in a manifest but for its name, its size and executable.
const fileFixed = len(`{"name":"","size":,"sha1":"","sha256":""},`) + 40 + 64

const executableKey = `,"executable":true`

// AppendManifest appends the bytes of m, which [Manifest.Check] passes.
func AppendManifest(dst []byte, m *Manifest) []byte {
	dst = slices.Grow(dst, manifestLen(m))
	dst = append(dst, `{"schema":1,"contentId":"`...)
	dst = append(dst, m.Ref.ID...)
	dst = append(dst, `","version":`...)
	dst = strconv.AppendUint(dst, m.Ref.Version, 10)
	dst = append(dst, `,"pieceSize":`...)
	dst = strconv.AppendInt(dst, int64(m.PieceSize), 10)
	dst = append(dst, `,"size":`...)
	dst = strconv.AppendInt(dst, m.Size, 10)
	dst = append(dst, `,"hashOfHashes":"`...)
	dst = appendBase64(dst, &m.HashOfHashes)
	dst = append(dst, `","files":[`...)
	for i := range m.Files {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendFile(dst, &m.Files[i])
	}
	return append(dst, `]}`...)
}

func appendFile(dst []byte, f *File) []byte {
	dst = append(dst, `{"name":"`...)
	dst = append(dst, f.Name...)
	dst = append(dst, `","size":`...)
	dst = strconv.AppendInt(dst, f.Size, 10)
	dst = append(dst, `,"sha1":"`...)
	dst = hex.AppendEncode(dst, f.SHA1[:])
	dst = append(dst, `","sha256":"`...)
	dst = hex.AppendEncode(dst, f.SHA256[:])
	dst = append(dst, '"')
	if f.Executable {
		dst = append(dst, executableKey...)
	}
	return append(dst, '}')
}

// manifestLen returns the bytes that AppendManifest appends.
func manifestLen(m *Manifest) int {
	n := len(`{"schema":1,"contentId":"","version":,"pieceSize":,"size":,"hashOfHashes":"","files":[]}`) + base64Len +
		len(m.Ref.ID) + decimalLen(int64(m.Ref.Version)) + decimalLen(int64(m.PieceSize)) + decimalLen(m.Size)
	for i := range m.Files {
		f := &m.Files[i]
		n += fileFixed + len(f.Name) + decimalLen(f.Size)
		if f.Executable {
			n += len(executableKey)
		}
	}
	if len(m.Files) > 0 {
		n-- // no comma after the last file
	}
	return n
}

// ParseManifest reads the bytes that AppendManifest writes; anything else is an error that
// names the byte, or the file, and what was expected. b is not kept.
func ParseManifest(b []byte) (*Manifest, error) {
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("content: parse manifest: it has %d bytes, more than %d", len(b), MaxManifest)
	}
	s := &scanner{what: "manifest", b: b}
	s.lit(`{"schema":`)
	s.version("schema", 1)
	m := &Manifest{PieceSize: PieceSize}
	s.lit(`,"contentId":"`)
	m.Ref.ID = ID(s.str())
	s.lit(`,"version":`)
	m.Ref.Version = uint64(s.num(math.MaxInt64))
	s.lit(`,"pieceSize":1048576,"size":`)
	m.Size = s.num(MaxSize)
	s.lit(`,"hashOfHashes":"`)
	m.HashOfHashes = s.digest()
	s.lit(`","files":[`)
	s.files(m)
	s.lit(`}`)
	s.end()
	if s.err != nil {
		return nil, s.err
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("content: parse manifest of %q: %w", m.Ref, err)
	}
	return m, nil
}

// files takes the files and the closing bracket. They are counted first, so that a manifest
// of too many allocates nothing.
func (s *scanner) files(m *Manifest) {
	const start = `{"name":"`
	if s.err != nil || s.has("]") {
		return
	}
	n := bytes.Count(s.b[s.at:], []byte(start))
	if n > MaxFiles {
		s.fail(s.at, "%d files, more than %d", n, MaxFiles)
		return
	}
	m.Files = make([]File, 0, n)
	for more := true; more; more = s.has(",") {
		m.Files = append(m.Files, s.file())
	}
	s.lit("]")
}

func (s *scanner) file() File {
	var f File
	s.lit(`{"name":"`)
	f.Name = s.str()
	s.lit(`,"size":`)
	f.Size = s.num(MaxSize)
	s.lit(`,"sha1":"`)
	s.hex(f.SHA1[:])
	s.lit(`","sha256":"`)
	s.hex(f.SHA256[:])
	s.lit(`"`)
	f.Executable = s.has(executableKey)
	s.lit(`}`)
	return f
}

// Check reports what makes m no manifest: a name, an order, a size or a limit.
func (m *Manifest) Check() error {
	if err := m.check(); err != nil {
		return fmt.Errorf("content: manifest of %q: %w", m.Ref, err)
	}
	return nil
}

func (m *Manifest) check() error {
	if err := checkID(string(m.Ref.ID)); err != nil {
		return err
	}
	if m.Ref.Version < 1 || m.Ref.Version > math.MaxInt64 {
		return fmt.Errorf("version %d is not a number from 1 to 2^63-1", m.Ref.Version)
	}
	if m.PieceSize != PieceSize {
		return fmt.Errorf("pieces of %d bytes, want %d", m.PieceSize, PieceSize)
	}
	if len(m.Files) > MaxFiles {
		return fmt.Errorf("%d files, more than %d", len(m.Files), MaxFiles)
	}
	if err := m.checkFiles(); err != nil {
		return err
	}
	if n := manifestLen(m); n > MaxManifest {
		return fmt.Errorf("%d bytes, more than %d", n, MaxManifest)
	}
	return checkPaths(m.Files)
}

// checkFiles checks each file, the order and the sums.
func (m *Manifest) checkFiles() error {
	var size, pieces int64
	prev := ""
	for i := range m.Files {
		f := &m.Files[i]
		if err := checkName(f.Name, commonFolder(prev, f.Name)); err != nil {
			return err
		}
		if f.Size < 0 || f.Size > MaxSize {
			return fmt.Errorf("file %q: size %d is not from 0 to %d bytes", clip(f.Name), f.Size, MaxSize)
		}
		if f.Name <= prev {
			return fmt.Errorf("file %q stands after %q: files are in byte order of their names, each once", clip(f.Name), clip(prev))
		}
		prev = f.Name
		size += f.Size
		pieces += pieceCount(f.Size)
	}
	if size != m.Size {
		return fmt.Errorf("size %d, but its files have %d bytes together", m.Size, size)
	}
	if pieces > MaxPieces {
		return fmt.Errorf("%d pieces, more than %d", pieces, MaxPieces)
	}
	return nil
}

// Pieces returns the number of pieces of all files.
func (m *Manifest) Pieces() int {
	var n int64
	for i := range m.Files {
		n += pieceCount(m.Files[i].Size)
	}
	return int(n)
}

// pieceCount returns the number of pieces of a file of size bytes.
func pieceCount(size int64) int64 { return (size + PieceSize - 1) / PieceSize }

// BuildManifest makes manifest and hash file of files in any order; pieces[i] are the piece
// hashes of files[i], as [FileHasher.Sum] gives both. The arguments are not changed.
func BuildManifest(ref Ref, files []File, pieces [][]Digest) (*Manifest, *HashFile, error) {
	if len(files) != len(pieces) {
		return nil, nil, fmt.Errorf("content: build manifest of %q: %d files, piece hashes of %d", ref, len(files), len(pieces))
	}
	order := make([]int, len(files))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(files[a].Name, files[b].Name) })
	m := &Manifest{Ref: ref, PieceSize: PieceSize, Files: make([]File, 0, len(files))}
	var all []Digest
	for _, i := range order {
		f := files[i]
		m.Files = append(m.Files, f)
		m.Size += f.Size
		all = append(all, pieces[i]...)
	}
	m.HashOfHashes = HashOfHashes(all)
	h := &HashFile{HashOfHashes: m.HashOfHashes, ContentLength: m.Size, PieceSize: PieceSize, Pieces: all}
	if err := m.check(); err != nil {
		return nil, nil, fmt.Errorf("content: build manifest of %q: %w", ref, err)
	}
	for _, i := range order {
		if err := checkPieces(&files[i], pieces[i]); err != nil {
			return nil, nil, fmt.Errorf("content: build manifest of %q: %w", ref, err)
		}
	}
	return m, h, nil
}

// checkPieces checks the piece hashes of one file: their number, and that a file of one piece
// has one hash.
func checkPieces(f *File, pieces []Digest) error {
	if want := pieceCount(f.Size); int64(len(pieces)) != want {
		return fmt.Errorf("file %q of %d bytes has %d piece hashes, want %d", clip(f.Name), f.Size, len(pieces), want)
	}
	if len(pieces) == 1 && pieces[0] != f.SHA256 {
		return fmt.Errorf("file %q has one piece, whose SHA-256 %s is not the file's %s", clip(f.Name), pieces[0].Short(), f.SHA256.Short())
	}
	return nil
}
