package metadata

import (
	"fmt"

	"github.com/klauspost/compress/zstd"

	"freshet/internal/wire"
)

// Pack compresses the bytes of a part: its Frame.
func Pack(b []byte) []byte {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic("metadata: zstd: " + err.Error()) // options are constant
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

// PartOf returns the part of a whole from offset on; one of nothing is how to say that there is
// none.
func PartOf(of wire.Type, whole []byte, offset uint64) wire.Part {
	p := wire.Part{Of: of, Offset: min(offset, uint64(len(whole))), Total: uint64(len(whole))}
	if rest := whole[p.Offset:]; len(rest) > 0 {
		p.Frame = Pack(rest[:min(len(rest), wire.MaxPart)])
	}
	return p
}

// Unpack returns the bytes of a part, bounded by what the part may be.
func Unpack(p wire.Part) ([]byte, error) {
	limit := min(wire.MaxPart, p.Total-p.Offset)
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(wire.MaxPart))
	if err != nil {
		panic("metadata: zstd: " + err.Error())
	}
	defer r.Close()
	b, err := r.DecodeAll(p.Frame, nil)
	if err != nil {
		return nil, err
	}
	if uint64(len(b)) > limit || len(b) == 0 {
		return nil, fmt.Errorf("part unpacks to %d bytes, at most %d are left", len(b), limit)
	}
	return b, nil
}
