package wire

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"freshet/internal/content"
)

const (
	aDigest = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"
	bDigest = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
	aDevice = "101112131415161718191a1b1c1d1e1f"
)

func lanDigest(t testing.TB, s string) (d content.Digest) {
	t.Helper()
	copy(d[:], unhex(t, s))
	return d
}

// lanVectors are messages with their bytes.
func lanVectors(t testing.TB) map[string]struct {
	hex string
	msg LANMessage
} {
	a, b := lanDigest(t, aDigest), lanDigest(t, bDigest)
	var dev DeviceID
	copy(dev[:], unhex(t, aDevice))
	seeker := Standing{Able: true, Share: 3, Weight: 61, Priority: Foreground}
	zeros := func(n int) string { return strings.Repeat("00", n) }
	id128 := content.ID(strings.Repeat("x", 128))
	return map[string]struct {
		hex string
		msg LANMessage
	}{
		"question": {
			"01 01033d01 01" + aDigest + zeros(47),
			Question{seeker, Subject{By: ByHashOfHashes, Digest: a}}},
		"question by metadata": {
			"01 00000000 02 01" + aDigest + zeros(46),
			Question{Standing{}, Subject{By: ByMetadataHash, Algorithm: content.SHA1Algorithm, Digest: a}}},
		"question by ref": {
			"01 01000100 03 0000000000000007 04 64656d6f" + zeros(66),
			Question{Standing{Able: true, Weight: 1}, Subject{By: ByRef, Ref: content.Ref{ID: "demo", Version: 7}}}},
		"question by a long ref": {
			"01 01000100 03 0000000000000000 80" + strings.Repeat("78", 128),
			Question{Standing{Able: true, Weight: 1}, Subject{By: ByRef, Ref: content.Ref{ID: id128}}}},
		"answer": {
			"02 0102030405060708" + aDigest + bDigest + "0000000065000000 000a3200",
			Answer{0x0102030405060708, a, b, 0x65000000, Standing{Share: Complete, Weight: 50}}},
		"heartbeat": {
			"03 32 02" +
				aDigest + "0000000000000009 00000003 00000004 00002710 1f 01" + aDevice +
				bDigest + "0000000000000000 00000000 00000001 00000000 00 00" + zeros(16),
			Heartbeat{50, []Beat{
				{HashOfHashes: a, Epoch: 9, Held: 3, Total: 4, Rate: 10000, Flags: allFlags, Priority: Foreground, Device: dev},
				{HashOfHashes: b, Total: 1},
			}}},
		"resignation": {
			"04" + aDigest + "000000000000000b 03" + aDevice,
			Resign{a, 11, Yielded, dev}},
		"validate, wanted": {
			"05 0000000000000001 04 64656d6f 01 02" + aDigest,
			Validate{Ref: content.Ref{ID: "demo", Version: 1}, Algorithm: content.SHA256Algorithm, Wanted: a}},
		"validate, rejected": {
			"05 0000000000000001 04 64656d6f 02" + bDigest,
			Validate{Ref: content.Ref{ID: "demo", Version: 1}, Rejected: b}},
	}
}

func TestLANVectors(t *testing.T) {
	for name, v := range lanVectors(t) {
		t.Run(name, func(t *testing.T) {
			b := unhex(t, v.hex)
			if got := v.msg.AppendLAN([]byte{7}); !bytes.Equal(got[1:], b) || got[0] != 7 {
				t.Errorf("appended %x, want %x", got, b)
			}
			if got, err := ParseLAN(b); err != nil || !reflect.DeepEqual(got, v.msg) {
				t.Errorf("ParseLAN = %+v, %v, want %+v", got, err, v.msg)
			}
			for n := range b {
				if m, err := ParseLAN(b[:n]); err == nil {
					t.Errorf("the first %d bytes of %d are taken as %+v", n, len(b), m)
				}
			}
			if m, err := ParseLAN(append(bytes.Clone(b), 0)); err == nil {
				t.Errorf("a byte more is taken as %+v", m)
			}
		})
	}
}

func TestLANRefuses(t *testing.T) {
	v := lanVectors(t)
	with := func(name string, at int, c byte) []byte {
		b := unhex(t, v[name].hex)
		b[at] = c
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"empty":                      {nil, "has 0 bytes"},
		"too long":                   {make([]byte, MaxLAN+1), "has 701 bytes"},
		"another type":               {[]byte{9, 1}, "unknown type 0x9"},
		"able 2":                     {with("question", 1, 2), "standing 02"},
		"share 11":                   {with("question", 2, 11), "standing 01 0b"},
		"weight 100":                 {with("question", 3, 100), "standing 01 03 64"},
		"priority 2":                 {with("answer", answerSize-1, 2), "standing 00 0a 32 02"},
		"subject 4":                  {with("question", 5, 4), "unknown kind 0x4"},
		"algorithm 3":                {with("question by metadata", 6, 3), "algorithm 3"},
		"filled with others":         {with("question", answerSize-1, 1), "filled up with 0x1"},
		"bad id":                     {with("question by ref", 15, '/'), "is not allowed"},
		"version 2^63":               {with("question by ref", 6, 0x80), "more than 2^63-1"},
		"id past the end":            {with("question by ref", 14, 200), "too few bytes"},
		"generation below zero":      {with("answer", 73, 0x80), "has the generation -"},
		"heartbeat of 100":           {with("heartbeat", 1, 100), "with weight 100"},
		"no beats":                   {[]byte{3, 50, 0}, "and 0 beats"},
		"beats missing":              {with("heartbeat", 2, 3), "3 beats in 140 bytes"},
		"more held than all":         {with("heartbeat", 3+32+8+3, 5), "5 of 4 pieces"},
		"none in all":                {with("heartbeat", 3+beatSize+32+8+7, 0), "0 of 0 pieces"},
		"too many pieces":            {with("heartbeat", 3+32+8+4, 1), "of 16777220 pieces"},
		"flag 0x20":                  {with("heartbeat", 3+32+20, 0x20), "flags 0x20"},
		"beat of priority 2":         {with("heartbeat", 3+32+21, 2), "priority 2"},
		"leads in epoch 0":           {with("heartbeat", 3+32+7, 0), "without an epoch"},
		"resigns from epoch 0":       {with("resignation", 1+32+7, 0), "from epoch 0"},
		"resigns for 5":              {with("resignation", 1+32+8, 5), "for reason 0x5"},
		"validate, no version":       {with("validate, wanted", 8, 0), "without a version"},
		"validate, algorithm 0":      {with("validate, wanted", 1+8+1+4+1, 0), "by algorithm 0"},
		"validate, kinds mixed up":   {with("validate, wanted", 1+8+1+4, 2), "has 34 bytes"},
		"validate, unknown kind":     {with("validate, rejected", 1+8+1+4, 3), "has 33 bytes"},
		"validate, nothing but type": {[]byte{5}, "too few bytes"},
	} {
		if m, err := ParseLAN(c.b); err == nil || m != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v, want an error with %q", name, m, err, c.want)
		}
	}
	if _, err := ParseLAN([]byte{9, 1}); !errors.Is(err, ErrLANType) {
		t.Errorf("an unknown type gives %v, want ErrLANType", err)
	}
}

func TestLANSizes(t *testing.T) {
	full := Heartbeat{Beats: make([]Beat, MaxBeats)}
	if n := len(full.AppendLAN(nil)); n > MaxLAN || n+beatSize <= MaxLAN {
		t.Errorf("a full heartbeat has %d bytes, of at most %d", n, MaxLAN)
	}
	answer := len(Answer{}.AppendLAN(nil))
	for name, v := range lanVectors(t) {
		b := v.msg.AppendLAN(nil)
		if _, ok := v.msg.(Question); ok && len(b) < answer {
			t.Errorf("%s has %d bytes, fewer than its answer's %d", name, len(b), answer)
		}
		if len(b) > MaxLAN {
			t.Errorf("%s has %d bytes, more than %d", name, len(b), MaxLAN)
		}
	}
}

// An answer's tag tells questions apart that name different things, or name them otherwise.
func TestSubjectTags(t *testing.T) {
	d := lanDigest(t, aDigest)
	seen := map[uint64]Subject{}
	for _, s := range []Subject{
		{By: ByHashOfHashes, Digest: d},
		{By: ByMetadataHash, Algorithm: content.SHA1Algorithm, Digest: d},
		{By: ByMetadataHash, Algorithm: content.SHA256Algorithm, Digest: d},
		{By: ByRef, Ref: content.Ref{ID: "demo", Version: 1}},
		{By: ByRef, Ref: content.Ref{ID: "demo", Version: 2}},
		{By: ByRef, Ref: content.Ref{ID: "demo2", Version: 1}},
	} {
		if other, ok := seen[s.Tag()]; ok {
			t.Errorf("%+v and %+v have one tag", s, other)
		}
		seen[s.Tag()] = s
	}
	if s := (Subject{By: ByHashOfHashes, Digest: d}); s.Key() != d {
		t.Errorf("the key of HashOfHashes %s is %s", d, s.Key())
	}
}

func TestValidateInAnEnvelope(t *testing.T) {
	want := Validate{Ref: content.Ref{ID: "demo", Version: 3}, Algorithm: content.SHA1Algorithm, Wanted: lanDigest(t, bDigest)}
	b := AppendValidateMetadata(nil, AppendValidate(nil, want))
	_, rest, err := ParseEnvelope(b[HeaderSize:])
	if err != nil {
		t.Fatal(err)
	}
	body, err := ParseValidateMetadata(rest)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseValidate(body); err != nil || got != want {
		t.Errorf("ParseValidate = %+v, %v, want %+v", got, err, want)
	}
}

func FuzzLAN(f *testing.F) {
	for _, v := range lanVectors(f) {
		f.Add(unhex(f, v.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseLAN(b)
		if err != nil {
			if m != nil {
				t.Errorf("%x gives %+v and %v", b, m, err)
			}
			return
		}
		if got := m.AppendLAN(nil); !bytes.Equal(got, b) {
			t.Errorf("parsed and appended %x, want %x", got, b)
		}
	})
}

func FuzzValidate(f *testing.F) {
	for _, v := range lanVectors(f) {
		if m, ok := v.msg.(Validate); ok {
			f.Add(AppendValidate(nil, m))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := ParseValidate(b); err == nil && !bytes.Equal(AppendValidate(nil, v), b) {
			t.Errorf("%x is not how %+v is spelled", b, v)
		}
	})
}
