package content

import (
	"crypto/sha1"
	"crypto/sha256"
	"testing"

	"pgregory.net/rapid"
)

func TestFileHasher(t *testing.T) {
	h := NewFileHasher()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(rapid.IntRange(0, 5), rapid.IntRange(PieceSize-2, PieceSize+2), rapid.IntRange(0, 3*PieceSize)).Draw(t, "size")
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(i * 7 >> 3)
		}
		for rest := data; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "write")
			if got, err := h.Write(rest[:n]); got != n || err != nil {
				t.Fatalf("Write = %d, %v, want %d", got, err, n)
			}
			rest = rest[n:]
		}
		f, pieces := h.Sum("a", size%2 == 0)
		want := File{Name: "a", Size: int64(size), SHA1: sha1.Sum(data), SHA256: sha256.Sum256(data), Executable: size%2 == 0}
		if f != want {
			t.Fatalf("Sum = %+v, want %+v", f, want)
		}
		for i, got := range pieces {
			if want := DigestOf(data[i*PieceSize : min((i+1)*PieceSize, size)]); got != want {
				t.Fatalf("piece %d = %v, want %v", i, got, want)
			}
		}
		if int64(len(pieces)) != pieceCount(f.Size) {
			t.Fatalf("%d pieces of %d bytes", len(pieces), size)
		}
	})
}
