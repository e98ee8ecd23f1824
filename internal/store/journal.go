package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"freshet/internal/content"
)

// Journal format; the byte tables are in the package comment.
const (
	journalMagic   = "FRESHETJ"
	journalVersion = 1
	journalHeader  = 48
	journalRecord  = 16

	recordHeld    = 0x01 // u32 first piece | u32 count
	recordDropped = 0x02 // u32 first piece | u32 count
)

// maxJournal bounds what is read of a journal: bytes of a million records and its header.
const maxJournal = journalHeader + journalRecord<<20

var (
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
	errTooLarge = errors.New("larger than its format allows")
)

// record says of adjoining pieces that they are held from here on, or are not any more.
type record struct {
	kind         byte
	first, count uint32 // pieces
}

// appendJournalHeader appends the header of the journal of entry d.
func appendJournalHeader(b []byte, d content.Digest) []byte {
	at := len(b)
	b = append(b, journalMagic...)
	b = binary.BigEndian.AppendUint16(b, journalVersion)
	b = binary.BigEndian.AppendUint16(b, journalRecord)
	b = append(b, d[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
}

// appendRecord appends r. Its CRC goes on from the header's, so that a record of another
// entry never fits.
func appendRecord(b []byte, seed uint32, r record) []byte {
	at := len(b)
	b = append(b, r.kind, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, r.first)
	b = binary.BigEndian.AppendUint32(b, r.count)
	return binary.BigEndian.AppendUint32(b, crc32.Update(seed, castagnoli, b[at:]))
}

// headerCRC returns the CRC of a journal's header, which seeds those of its records.
func headerCRC(header []byte) uint32 {
	return binary.BigEndian.Uint32(header[journalHeader-4 : journalHeader])
}

// parseJournal reads a journal of an entry d with this many pieces. It returns the records
// up to the first that is torn or does not fit, and the bytes that they and the header
// take. An error means that the header itself is unusable; then nothing is held.
func parseJournal(b []byte, d content.Digest, pieces int) (records []record, valid int, err error) {
	if len(b) < journalHeader {
		return nil, 0, fmt.Errorf("journal of %d bytes has no header", len(b))
	}
	if string(b[:8]) != journalMagic {
		return nil, 0, fmt.Errorf("journal begins with %q, not %q", b[:8], journalMagic)
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != journalVersion {
		return nil, 0, &VersionError{What: "journal", Version: int(v)}
	}
	want := appendJournalHeader(nil, d)
	if !bytes.Equal(b[:journalHeader], want) {
		return nil, 0, errors.New("journal's header is damaged or of another entry")
	}
	seed := headerCRC(want)
	valid = journalHeader
	for len(b)-valid >= journalRecord {
		r, ok := parseRecord(b[valid:valid+journalRecord], seed, pieces)
		if !ok {
			break
		}
		records = append(records, r)
		valid += journalRecord
	}
	return records, valid, nil
}

func parseRecord(b []byte, seed uint32, pieces int) (record, bool) {
	r := record{
		kind:  b[0],
		first: binary.BigEndian.Uint32(b[4:]),
		count: binary.BigEndian.Uint32(b[8:]),
	}
	switch {
	case binary.BigEndian.Uint32(b[12:]) != crc32.Update(seed, castagnoli, b[:12]):
		return r, false
	case r.kind != recordHeld && r.kind != recordDropped:
		return r, false
	case b[1] != 0 || b[2] != 0 || b[3] != 0:
		return r, false
	}
	return r, r.count > 0 && uint64(r.first)+uint64(r.count) <= uint64(pieces)
}

// replay returns the runs that records leave held: those whose pieces are all held.
func replay(l *content.Layout, records []record) content.Bits {
	pieces := content.NewBits(l.Pieces())
	for _, r := range records {
		for p := int(r.first); p < int(r.first+r.count); p++ {
			if r.kind == recordHeld {
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

// recordsOf returns records of one kind for runs in ascending order, adjoining ones joined.
func recordsOf(kind byte, l *content.Layout, runs []int) []record {
	var out []record
	for _, n := range runs {
		r := l.Run(n)
		first, count := uint32(r.First), uint32(r.Count)
		if k := len(out) - 1; k >= 0 && out[k].first+out[k].count == first {
			out[k].count += count
			continue
		}
		out = append(out, record{kind: kind, first: first, count: count})
	}
	return out
}
