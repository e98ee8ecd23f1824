package content

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
)

// base64Len is the length of a digest in base64.
const base64Len = 44

// scanner reads JSON that has one spelling. Its first error stays, and after it every read
// returns a zero value.
type scanner struct {
	what string // what is read, for errors
	b    []byte
	at   int // bytes read
	err  error
}

// fail keeps the first error, at the offset at.
func (s *scanner) fail(at int, format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("content: parse %s: byte %d: %s", s.what, at, fmt.Sprintf(format, args...))
	}
}

// lit takes want.
func (s *scanner) lit(want string) {
	if s.err == nil && !s.has(want) {
		s.fail(s.at, "want %q, have %q", want, s.peek(len(want)))
	}
}

// has takes want if it comes next.
func (s *scanner) has(want string) bool {
	if s.err != nil || !bytes.HasPrefix(s.b[s.at:], []byte(want)) {
		return false
	}
	s.at += len(want)
	return true
}

// peek returns up to n bytes that come next.
func (s *scanner) peek(n int) []byte {
	return s.b[s.at:min(s.at+n, len(s.b))]
}

// num takes a number from 0 to limit, without leading zeros.
func (s *scanner) num(limit int64) int64 {
	start, v := s.at, int64(0)
	for s.err == nil && s.at < len(s.b) && s.b[s.at] >= '0' && s.b[s.at] <= '9' {
		d := int64(s.b[s.at] - '0')
		if v > (limit-d)/10 {
			s.fail(start, "want a number up to %d", limit)
			return 0
		}
		v = v*10 + d
		s.at++
	}
	if n := s.at - start; n == 0 || n > 1 && s.b[start] == '0' {
		s.fail(start, "want a number without leading zeros, have %q", s.peek(1))
	}
	return v
}

// str takes everything before the next quote, and the quote.
func (s *scanner) str() string {
	if s.err != nil {
		return ""
	}
	n := bytes.IndexByte(s.b[s.at:], '"')
	if n < 0 {
		s.fail(s.at, "want a string with its closing quote")
		return ""
	}
	v := string(s.b[s.at : s.at+n])
	s.at += n + 1
	return v
}

// hex takes 2·len(dst) lower-case hex digits.
func (s *scanner) hex(dst []byte) {
	src := s.peek(hex.EncodedLen(len(dst)))
	if s.err != nil {
		return
	}
	if len(src) < hex.EncodedLen(len(dst)) {
		s.fail(s.at, "want %d hex digits, the text ends", hex.EncodedLen(len(dst)))
		return
	}
	if bad := decodeHex(dst, src); bad >= 0 {
		s.fail(s.at+bad, "want a lower-case hex digit, have %q", src[bad])
		return
	}
	s.at += len(src)
}

// digest takes a digest in base64.
func (s *scanner) digest() Digest {
	if s.err != nil {
		return Digest{}
	}
	d, ok := decodeBase64(s.peek(base64Len))
	if !ok {
		s.fail(s.at, "want the base64 of %d bytes, have %q", len(d), s.peek(base64Len))
		return Digest{}
	}
	s.at += base64Len
	return d
}

// version takes a number that says which format this is; another than the one known fails.
func (s *scanner) version(key string, known int64) {
	start := s.at
	v := s.num(1<<31 - 1)
	if s.err == nil && v > known {
		s.err = fmt.Errorf("content: parse %s: it has %s %d, this freshet knows %d: it was made by a newer freshet, update this one", s.what, key, v, known)
	}
	if v < known {
		s.fail(start, "want %s %d", key, known)
	}
}

// end takes the end of the text.
func (s *scanner) end() {
	if s.at < len(s.b) {
		s.fail(s.at, "want the end, have %q", s.peek(16))
	}
}

// decodeHex decodes 2·len(dst) lower-case hex digits of src; it returns where the first
// other byte stands, or -1.
func decodeHex(dst, src []byte) int {
	for i := range dst {
		hi, lo := nibbles[src[2*i]], nibbles[src[2*i+1]]
		if hi > 15 {
			return 2 * i
		}
		if lo > 15 {
			return 2*i + 1
		}
		dst[i] = hi<<4 | lo
	}
	return -1
}

// nibbles holds the value of each lower-case hex digit, 0xff for other bytes.
var nibbles = func() (t [256]byte) {
	for c := range t {
		t[c] = 0xff
	}
	for v, c := range []byte("0123456789abcdef") {
		t[c] = byte(v)
	}
	return t
}()

// strictBase64 refuses trailing bits that are not zero.
var strictBase64 = base64.StdEncoding.Strict()

// decodeBase64 decodes a digest. The length is checked first: the decoder passes over
// newlines even when strict.
func decodeBase64(src []byte) (Digest, bool) {
	var buf [base64Len]byte
	if len(src) != base64Len {
		return Digest{}, false
	}
	n, err := strictBase64.Decode(buf[:], src)
	if err != nil || n != len(Digest{}) {
		return Digest{}, false
	}
	return Digest(buf[:n]), true
}

// appendBase64 appends the base64 of d.
func appendBase64(dst []byte, d *Digest) []byte {
	return base64.StdEncoding.AppendEncode(dst, d[:])
}

// decimalLen returns the number of digits of v, which is not negative.
func decimalLen(v int64) int {
	var buf [20]byte
	return len(strconv.AppendInt(buf[:0], v, 10))
}
