package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"freshet/internal/identity"
	"freshet/internal/web"
)

// counted matches the byte counters of /metrics.
var counted = regexp.MustCompile(`^freshet_wan_(?:received|sent)_bytes_total\{site="([^"]*)"\} ([0-9.e+]+)$`)

// metered reads the bytes that a process counted, received and sent, by site.
func (f *fleet) metered(ctx context.Context, addr string, role identity.Role) (map[string]int64, error) {
	cfg, err := identity.BearerConfig(f.token, role)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	c := web.Client(cfg, netip.Addr{})
	defer c.CloseIdleConnections()
	resp, err := c.Do(r)
	if err != nil {
		return nil, fmt.Errorf("demo: reading counters: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("demo: reading counters of %s: %s", addr, resp.Status)
	}
	sum := map[string]int64{}
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 1<<20))
	for lines.Scan() {
		if m := counted.FindStringSubmatch(lines.Text()); m != nil {
			n, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				return nil, err
			}
			sum[m[1]] += int64(n)
		}
	}
	return sum, lines.Err()
}

// sameTree returns an error unless the regular files below a and b are the same: names,
// bytes and executable bits.
func sameTree(ctx context.Context, a, b string) error {
	var c comparer
	n := 0
	err := filepath.WalkDir(a, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(a, name)
		if err != nil {
			return err
		}
		n++
		return c.same(name, filepath.Join(b, rel))
	})
	if err != nil {
		return err
	}
	m := 0
	err = filepath.WalkDir(b, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			m++
		}
		return err
	})
	if err == nil && n != m {
		err = fmt.Errorf("%d files instead of %d", m, n)
	}
	return err
}

// comparer compares files. Its buffers are used for all of them.
type comparer struct{ a, b [256 << 10]byte }

// same returns an error unless b has the bytes and the executable bit of a.
func (c *comparer) same(a, b string) error {
	fa, err := os.Open(a)
	if err != nil {
		return err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer fb.Close()
	sa, err := fa.Stat()
	if err != nil {
		return err
	}
	sb, err := fb.Stat()
	if err != nil {
		return err
	}
	if sa.Size() != sb.Size() || (sa.Mode()&0o111 != 0) != (sb.Mode()&0o111 != 0) {
		return fmt.Errorf("%q differs in size or executable bit", b)
	}
	for {
		n, err := io.ReadFull(fa, c.a[:])
		m, err2 := io.ReadFull(fb, c.b[:])
		if n != m || !bytes.Equal(c.a[:n], c.b[:m]) {
			return fmt.Errorf("%q differs", b)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err := errors.Join(err, err2); err != nil {
			return err
		}
	}
}
