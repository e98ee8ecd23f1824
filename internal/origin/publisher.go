package origin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"freshet/internal/api"
	"freshet/internal/blob"
	"freshet/internal/content"
	"freshet/internal/identity"
)

const (
	uploadWorkers = 4        // files under way at once
	maxReply      = 16 << 20 // bytes of a reply to Begin
	maxLine       = 64 << 10 // bytes of a line of progress
	maxProblem    = 64 << 10 // bytes of an error reply
)

// Publisher is the other end of a distribution point's publishing calls. It publishes one
// content.
type Publisher struct {
	HTTP     *http.Client // trusts servers of role origin alone
	Base     string       // URL of the distribution point, https://HOST:PORT/
	Ticket   []byte       // signed, for the manifest's Ref
	Manifest *content.Manifest

	Signature []byte // of the manifest, by the publisher's own key (minisign); nil: none
}

// Begin sends the manifest and returns the places in it of the files to upload.
func (p *Publisher) Begin(ctx context.Context) ([]int, error) {
	resp, err := p.call(ctx, http.MethodPut, p.path("upload"), p.manifest(), int64(-1))
	if err != nil {
		return nil, fmt.Errorf("begin upload to %s: %w", p.Base, err)
	}
	defer resp.Body.Close()
	var m Missing
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(&m); err != nil {
		return nil, fmt.Errorf("begin upload to %s: reply: %w", p.Base, err)
	}
	for _, i := range m.Files {
		if i < 0 || i >= len(p.Manifest.Files) {
			return nil, fmt.Errorf("begin upload to %s: it asks for file %d of %d", p.Base, i, len(p.Manifest.Files))
		}
	}
	return m.Files, nil
}

// Upload sends the files at these places of the manifest from dir. progress, called from
// several goroutines, is told the bytes sent since its last call.
func (p *Publisher) Upload(ctx context.Context, dir *blob.Dir, files []int, progress func(n int64)) error {
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(uploadWorkers, len(files)) {
		g.Go(func() error {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(files) {
					return nil
				}
				if err := p.send(ctx, dir, &p.Manifest.Files[files[n]], progress); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

func (p *Publisher) send(ctx context.Context, dir *blob.Dir, f *content.File, progress func(n int64)) error {
	file, err := dir.Open(f.Name)
	if err != nil {
		return fmt.Errorf("upload %q: %w", f.Name, err)
	}
	defer file.Close()
	body := &counted{r: io.LimitReader(file, f.Size), progress: progress}
	resp, err := p.call(ctx, http.MethodPut, p.path("upload")+"/"+escape(f.Name), body, f.Size)
	if err != nil {
		return fmt.Errorf("upload %q to %s: %w", f.Name, p.Base, err)
	}
	return resp.Body.Close()
}

// Publish asks for the files to be hashed, compared with the manifest, served and
// registered. progress is told of the hashing, in bytes.
func (p *Publisher) Publish(ctx context.Context, from string, progress func(done, total int64)) (*Result, error) {
	resp, err := p.call(ctx, http.MethodPost, p.path("publish")+"?from="+from, p.manifest(), int64(-1))
	if err != nil {
		return nil, fmt.Errorf("publish at %s: %w", p.Base, err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var line Progress
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("publish at %s: reply: %w", p.Base, err)
		}
		switch {
		case line.Problem != nil:
			return nil, fmt.Errorf("publish at %s: %w", p.Base, line.Problem)
		case line.Result != nil:
			return line.Result, p.check(line.Result)
		}
		progress(line.Done, line.Total)
	}
	err = lines.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("publish at %s: the reply ends before its result: %w; publish again", p.Base, err)
}

// check compares the digest, which is over names, sizes and hashes, with the own one.
func (p *Publisher) check(r *Result) error {
	want := content.DigestOf(content.AppendManifest(nil, p.Manifest))
	if r.ManifestDigest != want.String() {
		return fmt.Errorf("publish at %s: it published the manifest %q, not %s: it is not to be trusted with this content", p.Base, r.ManifestDigest, want)
	}
	return nil
}

func (p *Publisher) path(call string) string {
	return fmt.Sprintf("%sv1/%s/%s/%d", baseURL(p.Base), call, url.PathEscape(string(p.Manifest.Ref.ID)), p.Manifest.Ref.Version)
}

// escape escapes each part of a name and keeps the slashes.
func escape(name string) string {
	parts := strings.Split(name, "/")
	for i, s := range parts {
		parts[i] = url.PathEscape(s)
	}
	return strings.Join(parts, "/")
}

func (p *Publisher) manifest() io.Reader {
	return bytes.NewReader(content.AppendManifest(nil, p.Manifest))
}

// call makes a request and returns the reply if it is good. size is the body's length, -1
// when net/http knows it.
func (p *Publisher) call(ctx context.Context, method, at string, body io.Reader, size int64) (*http.Response, error) {
	if size == 0 {
		body = http.NoBody
	}
	r, err := http.NewRequestWithContext(ctx, method, at, body)
	if err != nil {
		return nil, err
	}
	if size >= 0 {
		r.ContentLength = size
	}
	r.Header.Set(identity.TicketHeader, base64.StdEncoding.EncodeToString(p.Ticket))
	if len(p.Signature) > 0 {
		r.Header.Set(identity.SignatureHeader, base64.StdEncoding.EncodeToString(p.Signature))
	}
	resp, err := p.HTTP.Do(r)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the caller names the server
		}
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readProblem(resp)
}

func readProblem(resp *http.Response) *api.Problem {
	p := &api.Problem{}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil || kind != "application/problem+json" || json.Unmarshal(b, p) != nil || p.Title == "" {
		*p = api.Problem{Title: fmt.Sprintf("unexpected reply %q", resp.Status), Detail: "is this the address of a distribution point?"}
	}
	p.Status = resp.StatusCode
	return p
}

// counted tells how many bytes were read.
type counted struct {
	r        io.Reader
	progress func(n int64)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if n > 0 && c.progress != nil {
		c.progress(int64(n))
	}
	return n, err
}
