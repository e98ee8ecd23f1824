package api

import (
	"strings"

	"freshet/internal/content"
)

// Where distribution points, and metadata hosts but for bytes, give a content: paths below the
// address of either, which has no slash at its end.

const bytesPath = "/bytes/"

// ManifestPath returns the path of a manifest.
func ManifestPath(manifest content.Digest) string { return "/metadata/" + manifest.String() }

// HashFilePath returns the path of a raw hash file.
func HashFilePath(hashOfHashes content.Digest) string {
	return "/pieceshash/" + hashOfHashes.String() + ".bin"
}

// BytesPath returns the path of a content's bytes.
func BytesPath(manifest content.Digest) string { return bytesPath + manifest.String() }

// OriginOf returns the address of the distribution point that a URL of bytes is of; false when
// it is no such URL.
func OriginOf(contentURL string) (base string, ok bool) {
	base, _, ok = strings.Cut(contentURL, bytesPath)
	return base, ok
}
