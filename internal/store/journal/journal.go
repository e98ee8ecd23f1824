// Package journal is the format of an entry's journal: which of its pieces are held. It reads
// and writes bytes, not files; when they are durable is the store's matter.
//
// A journal is appended to and never changed, integers big-endian, CRC32C (Castagnoli).
// Header, 48 bytes:
//
//	offset  bytes
//	     0      8  "FRESHETJ"
//	     8      2  version, 1
//	    10      2  bytes of a record, 16
//	    12     32  manifest digest
//	    44      4  CRC of the bytes before
//
// Record:
//
//	offset  bytes
//	     0      1  kind: 0x01 held, 0x02 dropped
//	     1      3  zero
//	     4      4  first piece
//	     8      4  count of pieces, at least 1
//	    12      4  CRC of the bytes before, begun with the header's CRC
//
// The first record that is torn, damaged or out of range ends the journal; what follows is
// cut off. A journal of a newer version is refused and left alone.
package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"freshet/internal/content"
	"freshet/internal/disk"
)

const (
	magic      = "FRESHETJ"
	version    = 1
	headerSize = 48
	recordSize = 16
)

// MaxSize bounds what is read of a journal: bytes of a million records and its header.
const MaxSize = headerSize + recordSize<<20

// Kind is what a record says.
type Kind byte

const (
	Held    Kind = 0x01 // u32 first piece | u32 count
	Dropped Kind = 0x02 // u32 first piece | u32 count
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record says of adjoining pieces that they are held from here on, or are not any more.
type Record struct {
	Kind         Kind
	First, Count uint32 // pieces
}

// AppendHeader appends the header of the journal of entry d.
func AppendHeader(b []byte, d content.Digest) []byte {
	at := len(b)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, version)
	b = binary.BigEndian.AppendUint16(b, recordSize)
	b = append(b, d[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
}

// AppendRecords appends records of the journal of entry d. Their CRCs go on from the header's,
// so that a record of another entry never fits.
func AppendRecords(b []byte, d content.Digest, records []Record) []byte {
	seed := seedOf(d)
	for _, r := range records {
		at := len(b)
		b = append(b, byte(r.Kind), 0, 0, 0)
		b = binary.BigEndian.AppendUint32(b, r.First)
		b = binary.BigEndian.AppendUint32(b, r.Count)
		b = binary.BigEndian.AppendUint32(b, crc32.Update(seed, castagnoli, b[at:]))
	}
	return b
}

// seedOf returns the CRC of the header of d's journal, which seeds those of its records.
func seedOf(d content.Digest) uint32 {
	header := AppendHeader(nil, d)
	return binary.BigEndian.Uint32(header[headerSize-4:])
}

// Parse reads a journal of an entry d with this many pieces. It returns the records
// up to the first that is torn or does not fit, and the bytes that they and the header
// take. An error means that the header itself is unusable; then nothing is held.
func Parse(b []byte, d content.Digest, pieces int) (records []Record, valid int, err error) {
	if len(b) < headerSize {
		return nil, 0, fmt.Errorf("journal of %d bytes has no header", len(b))
	}
	if string(b[:8]) != magic {
		return nil, 0, fmt.Errorf("journal begins with %q, not %q", b[:8], magic)
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != version {
		return nil, 0, &disk.VersionError{What: "journal", Version: int(v)}
	}
	if !bytes.Equal(b[:headerSize], AppendHeader(nil, d)) {
		return nil, 0, errors.New("journal's header is damaged or of another entry")
	}
	seed := seedOf(d)
	valid = headerSize
	for len(b)-valid >= recordSize {
		r, ok := parseRecord(b[valid:valid+recordSize], seed, pieces)
		if !ok {
			break
		}
		records = append(records, r)
		valid += recordSize
	}
	return records, valid, nil
}

func parseRecord(b []byte, seed uint32, pieces int) (Record, bool) {
	r := Record{
		Kind:  Kind(b[0]),
		First: binary.BigEndian.Uint32(b[4:]),
		Count: binary.BigEndian.Uint32(b[8:]),
	}
	switch {
	case binary.BigEndian.Uint32(b[12:]) != crc32.Update(seed, castagnoli, b[:12]):
		return r, false
	case r.Kind != Held && r.Kind != Dropped:
		return r, false
	case b[1] != 0 || b[2] != 0 || b[3] != 0:
		return r, false
	}
	return r, r.Count > 0 && uint64(r.First)+uint64(r.Count) <= uint64(pieces)
}

// Replay returns the runs that records leave held: those whose pieces are all held.
func Replay(l *content.Layout, records []Record) content.Bits {
	pieces := content.NewBits(l.Pieces())
	for _, r := range records {
		for p := int(r.First); p < int(r.First+r.Count); p++ {
			if r.Kind == Held {
				pieces.Add(p)
			} else {
				pieces.Remove(p)
			}
		}
	}
	runs := content.NewBits(l.Runs())
	for r := range l.Runs() {
		run, all := l.Run(r), true
		for p := run.First; all && p < run.First+run.Count; p++ {
			all = pieces.Has(p)
		}
		if all {
			runs.Add(r)
		}
	}
	return runs
}

// Records returns records of one kind for runs in ascending order, adjoining ones joined.
func Records(kind Kind, l *content.Layout, runs []int) []Record {
	var out []Record
	for _, n := range runs {
		r := l.Run(n)
		first, count := uint32(r.First), uint32(r.Count)
		if k := len(out) - 1; k >= 0 && out[k].First+out[k].Count == first {
			out[k].Count += count
			continue
		}
		out = append(out, Record{Kind: kind, First: first, Count: count})
	}
	return out
}
