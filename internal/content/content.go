// Package content is freshet's vocabulary: what a content is, what names it, and the
// bytes that describe it (manifest, hash file, MetadataHash). It imports no other
// package of freshet and does no I/O.
//
// # Manifest
//
// One line of JSON in exactly one spelling, so that equal manifests have equal bytes and
// the manifest digest (SHA-256 of the bytes) names the content:
//
//	{"schema":1,"contentId":"…","version":1,"pieceSize":1048576,"size":N,
//	 "hashOfHashes":"<base64>","files":[{"name":"dir/a.cab","size":1,
//	 "sha1":"<hex>","sha256":"<hex>","executable":true}]}
//
// (on one line). Keys in this order, files in byte order of their names, executable only
// when true, no blanks, UTF-8 with nothing escaped but ", \ and control characters, no
// final newline. As neither ids nor names may hold those, no manifest has an escape. At
// most [MaxManifest] bytes, [MaxFiles] files and [MaxPieces] pieces. Another schema number
// is another format: it is refused as made by a newer freshet. [ParseManifest] takes exactly
// what [AppendManifest] writes.
//
// # Hash file
//
// DO's pieces hash file, also in one spelling, or raw: 32 bytes a piece, nothing else.
// HashOfHashes is the SHA-256 over the raw piece hashes, one after the other.
//
//	{"MajorVersion":1,"MinorVersion":0,"HashOfHashes":"<base64>","ContentLength":N,
//	 "PieceSize":1048576,"Pieces":["<base64>",…]}
//
// # Pieces and runs
//
// The concatenation of a content is its files' bytes in manifest order. Every file begins a
// new piece; an empty file has none. A run is a piece of full size, or adjoining pieces of
// together at most [PieceSize] bytes; runs are what is asked for, told and journalled. They
// follow from the piece lengths alone, so every device that shares a HashOfHashes has the
// same ones. See [Layout].
//
// # MetadataHash
//
// Nomad's hash over the names and hashes of all files, version 1:
//
//	fold(name) = '\' → '/', leading "./" dropped, ASCII a–z → A–Z
//	entry      = u8 algorithm (1 SHA-1, 2 SHA-256) | u8 digest length | digest |
//	             u32be name length | fold(name)
//	order      = algorithm, then digest bytes, then folded name bytes
//	hash       = SHA-256( "metadatahash-v1" 0x00 | u32be number of entries | entries )
package content

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Limits of the formats (design sections 4.1 and 4.2).
const (
	PieceSize   = 1 << 20  // bytes of a piece; the last piece of a file may be shorter
	MaxManifest = 64 << 20 // bytes
	MaxFiles    = 300_000
	MaxPieces   = 8 << 20                      // of a content; a bitfield of them (1 MiB) fits into one swarm message
	MaxSize     = int64(MaxPieces) * PieceSize // bytes of a content, 8 TiB; MaxFiles times as much still fits into int64
)

// Digest is a SHA-256. As text it is lower-case hex, in DO's JSON base64.
type Digest [sha256.Size]byte

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads 64 lower-case hex digits.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != hex.EncodedLen(len(d)) {
		return d, fmt.Errorf("content: digest %q is not %d hex digits", s, hex.EncodedLen(len(d)))
	}
	if at := decodeHex(d[:], []byte(s)); at >= 0 {
		return Digest{}, fmt.Errorf("content: digest %q is not lower-case hex", s)
	}
	return d, nil
}

// ParseDigestBase64 reads the 44 characters of standard base64 that DO's JSON holds.
func ParseDigestBase64(s string) (Digest, error) {
	d, ok := decodeBase64([]byte(s))
	if !ok {
		return Digest{}, fmt.Errorf("content: %q is not the base64 of %d bytes", s, len(d))
	}
	return d, nil
}

// String returns lower-case hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 hex digits, for logs and tables.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// Base64 returns standard base64.
func (d Digest) Base64() string { return base64.StdEncoding.EncodeToString(d[:]) }

// IsZero reports whether d was never set.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText writes lower-case hex.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads lower-case hex.
func (d *Digest) UnmarshalText(b []byte) error {
	p, err := ParseDigest(string(b))
	if err != nil {
		return err
	}
	*d = p
	return nil
}

// SHA1 is a SHA-1. It is compared with expected metadata and never trusted alone.
type SHA1 [20]byte

// String returns lower-case hex.
func (s SHA1) String() string { return hex.EncodeToString(s[:]) }

// ID is a ContentID: 1 to 128 letters, digits and . _ ~ = + - characters, the first one a
// letter or digit, the last one no dot, and no name that Windows reserves, so that it is one
// part of a path and of a URL everywhere.
type ID string

// ParseID checks s.
func ParseID(s string) (ID, error) {
	if err := checkID(s); err != nil {
		return "", fmt.Errorf("content: %w", err)
	}
	return ID(s), nil
}

func checkID(s string) error {
	if len(s) == 0 || len(s) > 128 {
		return fmt.Errorf("id %q must have 1 to 128 characters", clip(s))
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._~=+-", rune(c))) {
			return fmt.Errorf("id %q: character %q at %d is not allowed; use letters, digits and . _ ~ = + -, a letter or digit first", s, c, i)
		}
	}
	if err := checkPart(s); err != nil {
		return fmt.Errorf("id %q %w", s, err)
	}
	return nil
}

// Ref asks for a content; what it gets is named by a manifest digest.
type Ref struct {
	ID      ID
	Version uint64 // from 1
}

// ParseRef reads "ID" or "ID@VERSION"; without a version it is 0, which stands for the newest.
func ParseRef(s string) (Ref, error) {
	id, version, found := strings.Cut(s, "@")
	cid, err := ParseID(id)
	if err != nil {
		return Ref{}, err
	}
	if !found {
		return Ref{ID: cid}, nil
	}
	v, err := ParseVersion(version)
	if err != nil {
		return Ref{}, fmt.Errorf("%w (of %q)", err, id)
	}
	return Ref{ID: cid, Version: v}, nil
}

// ParseVersion reads a version: a decimal number from 1 to 2^63-1 without leading zeros.
func ParseVersion(s string) (uint64, error) {
	v, err := strconv.ParseUint(s, 10, 63)
	if err != nil || s[0] == '0' {
		return 0, fmt.Errorf("content: version %q is not a number from 1", s)
	}
	return v, nil
}

// String returns "ID@VERSION", or "ID" for the newest version.
func (r Ref) String() string {
	if r.Version == 0 {
		return string(r.ID)
	}
	return string(r.ID) + "@" + strconv.FormatUint(r.Version, 10)
}

// File is one file of a content.
type File struct {
	Name       string // relative, /-separated; see CheckName
	Size       int64  // bytes
	SHA1       SHA1
	SHA256     Digest
	Executable bool
}

// Manifest says what a content is. Its bytes are kept as received; the digest is over them.
type Manifest struct {
	Ref          Ref
	PieceSize    int   // bytes; always PieceSize in schema 1
	Size         int64 // bytes of all files
	HashOfHashes Digest
	Files        []File // in byte order of names, no two alike but for letter case
}

// HashFile is DO's pieces hash file.
type HashFile struct {
	HashOfHashes  Digest
	ContentLength int64 // bytes
	PieceSize     int   // bytes
	Pieces        []Digest
}
