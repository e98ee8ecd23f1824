package origin

import (
	"errors"
	"strconv"
	"strings"
)

// errUnsatisfied: no single range of the resource is asked for; the reply is 416.
var errUnsatisfied = errors.New("not one satisfiable range")

// parseRange reads a Range header for a resource of size bytes (RFC 9110, 14.1.2). ok is
// false when the header is to be ignored because its unit is unknown. Several ranges, and
// what is no range at all, are errUnsatisfied.
func parseRange(header string, size int64) (off, n int64, ok bool, err error) {
	unit, spec, found := strings.Cut(header, "=")
	if !found || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return 0, 0, false, nil
	}
	spec = strings.Trim(spec, " \t")
	first, last, found := strings.Cut(spec, "-")
	if !found {
		return 0, 0, false, errUnsatisfied
	}
	if first == "" {
		n, err := parsePosition(last)
		if err != nil || n == 0 || size == 0 {
			return 0, 0, false, errUnsatisfied
		}
		n = min(n, size)
		return size - n, n, true, nil
	}
	off, err = parsePosition(first)
	if err != nil || off >= size {
		return 0, 0, false, errUnsatisfied
	}
	end := size - 1
	if last != "" {
		at, err := parsePosition(last)
		if err != nil || at < off {
			return 0, 0, false, errUnsatisfied
		}
		end = min(end, at)
	}
	return off, end - off + 1, true, nil
}

// parsePosition reads digits alone; a number too big for int64 is as good as the biggest.
func parsePosition(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, errUnsatisfied
	}
	return int64(n), nil
}
