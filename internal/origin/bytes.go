package origin

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"freshet/internal/blob"
	"freshet/internal/content"
	"freshet/internal/web"
)

const (
	sendSize    = 256 << 10       // bytes of one read and write: 16 full TLS records
	sendTimeout = 5 * time.Minute // for one such write, so that a dead reader does not stay
)

// sendBuffers holds *[]byte of sendSize bytes.
var sendBuffers = sync.Pool{New: func() any { b := make([]byte, sendSize); return &b }}

// serveBytes serves the concatenation of a content, or one file of it.
func (o *Origin) serveBytes(w http.ResponseWriter, r *http.Request) {
	d, err := content.ParseDigest(r.PathValue("manifestDigest"))
	if err != nil || !o.mayReadManifest(r, d) {
		blob.NotFound(w, r)
		return
	}
	e, ok := o.lookup(d)
	if !ok {
		blob.NotFound(w, r)
		return
	}
	p := part{entry: e, size: e.size}
	if e.tree == nil {
		o.refuse(w, r, p, blob.ErrChanged)
		return
	}
	if name := r.PathValue("name"); name != "" {
		if p.base, p.size, ok = e.tree.Span(name); !ok {
			blob.NotFound(w, r)
			return
		}
	}
	p.off, p.n = 0, p.size
	if !p.selectRange(w, r) {
		return
	}
	o.send(w, r, p)
}

// part is what a request asks for: n bytes at off of the size bytes at base of the
// concatenation.
type part struct {
	entry      *entry
	base, size int64
	off, n     int64
	ranged     bool
}

// selectRange applies the request's Range to p. It reports false when it has replied.
func (p *part) selectRange(w http.ResponseWriter, r *http.Request) bool {
	tag := `"` + p.entry.record.Manifest.String() + `"`
	h := w.Header()
	h.Set("ETag", tag)
	h.Set("Accept-Ranges", "bytes")
	if web.TagMatches(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return false
	}
	ranges := r.Header.Values("Range")
	if r.Method != http.MethodGet || len(ranges) == 0 {
		return true // Range is defined for GET alone
	}
	if v := r.Header.Get("If-Range"); v != "" && v != tag {
		return true
	}
	if len(ranges) > 1 {
		web.Problem(w, r, *problem(http.StatusBadRequest, "bad-range", "several Range headers", "send one"))
		return false
	}
	off, n, ok, err := parseRange(ranges[0], p.size)
	if err != nil {
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", p.size))
		web.Problem(w, r, *problem(http.StatusRequestedRangeNotSatisfiable, "bad-range", "the range cannot be served",
			fmt.Sprintf("%q is not one range of %d bytes", ranges[0], p.size)))
		return false
	}
	if ok {
		p.off, p.n, p.ranged = off, n, true
	}
	return true
}

// send replies with p. The first bytes are read before the status is sent, so that a file
// that has changed is a 409; later, the connection is broken.
func (o *Origin) send(w http.ResponseWriter, r *http.Request, p part) {
	buf := sendBuffers.Get().(*[]byte)
	defer sendBuffers.Put(buf)
	b := (*buf)[:min(p.n, sendSize)]
	if err := o.read(p, b, 0); err != nil {
		o.refuse(w, r, p, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "private, immutable, max-age=31536000")
	h.Set("Content-Length", strconv.FormatInt(p.n, 10))
	status := http.StatusOK
	if p.ranged {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", p.off, p.off+p.n-1, p.size))
		status = http.StatusPartialContent
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	control := http.NewResponseController(w)
	for at := int64(0); ; {
		_ = control.SetWriteDeadline(time.Now().Add(sendTimeout)) // not every writer has one
		if _, err := w.Write(b); err != nil {
			return // the reader is gone
		}
		if at += int64(len(b)); at == p.n {
			break
		}
		b = (*buf)[:min(p.n-at, sendSize)]
		if err := o.read(p, b, at); err != nil {
			o.cfg.Log.Error("reply is broken off", "content", p.entry.record.ref().String(), "at", p.base+p.off+at, "err", err)
			panic(http.ErrAbortHandler) // the reader sees a body that is too short
		}
	}
	_ = control.SetWriteDeadline(time.Time{})
}

// read fills b from at bytes into p.
func (o *Origin) read(p part, b []byte, at int64) error {
	_, err := p.entry.tree.ReadAt(b, p.base+p.off+at)
	return err
}

// refuse replies to a read that failed before the status was sent.
func (o *Origin) refuse(w http.ResponseWriter, r *http.Request, p part, err error) {
	if p.entry.gone.Load() || errors.Is(err, blob.ErrChanged) {
		o.cfg.Log.Error("content no longer fits", "content", p.entry.record.ref().String(), "err", err)
		web.Problem(w, r, *problem(http.StatusConflict, "origin-stale", "the origin's files are no longer those of this manifest", ""))
		return
	}
	web.Fail(w, r, err)
}
