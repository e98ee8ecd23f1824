package origin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"freshet/internal/api"
	"freshet/internal/blob"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/web"
)

// Where a publish takes the files from: the query parameter "from".
const (
	FromUpload = "upload" // what was uploaded
	FromPlace  = "place"  // what lies in ROOT/ID/VERSION, or the mapped directory
)

// Progress is one line of the reply to a publish. The last one has Result or Problem.
type Progress struct {
	Done    int64        `json:"done"`  // bytes hashed
	Total   int64        `json:"total"` // bytes
	Result  *Result      `json:"result,omitempty"`
	Problem *api.Problem `json:"problem,omitempty"`
}

// Result is what was published.
type Result struct {
	ManifestDigest string `json:"manifestDigest"`
	HashOfHashes   string `json:"hashOfHashes"` // base64
	Generation     int64  `json:"generation"`
	Size           int64  `json:"size"` // bytes
	Files          int    `json:"files"`
}

const progressEvery = 200 * time.Millisecond

// publish hashes the files and compares them with the publisher's manifest; only when they
// are the same, they are served and registered.
func (o *Origin) publish(w http.ResponseWriter, r *http.Request) {
	t, err := o.permit(r)
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	u, err := readManifest(w, r, t.Ref)
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	from := r.URL.Query().Get("from")
	if from != FromUpload && from != FromPlace {
		web.Problem(w, r, *problem(http.StatusBadRequest, "bad-request", "from is neither upload nor place", ""))
		return
	}
	sig, err := signatureIn(r)
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	if !o.lock(t.Ref) {
		web.Fail(w, r, busy(t.Ref))
		return
	}
	defer o.unlock(t.Ref)
	lines := &lineWriter{w: w}
	w.Header().Set("Content-Type", "application/x-ndjson")
	c, err := o.install(r.Context(), t, u, installOptions{from == FromUpload, sig, lines.progress})
	if err != nil {
		o.cfg.Log.Warn("publish", "content", t.Ref.String(), "err", err)
		lines.write(Progress{Problem: problemOf(diskProblem(err))})
		return
	}
	o.spend(t)
	lines.write(Progress{Done: c.Size, Total: c.Size, Result: &Result{
		ManifestDigest: c.ManifestDigest, HashOfHashes: c.HashOfHashes, Generation: c.Generation, Size: c.Size, Files: len(u.manifest.Files),
	}})
}

// problemOf returns the problem in err, or one that says where to look.
func problemOf(err error) *api.Problem {
	var p *api.Problem
	if errors.As(err, &p) {
		return p
	}
	return problem(http.StatusInternalServerError, "publish-failed", "the distribution point could not publish", err.Error())
}

// signatureIn returns the publisher's signature of the manifest, nil where there is none. The
// server says whether it is good.
func signatureIn(r *http.Request) ([]byte, error) {
	sig, err := base64.StdEncoding.DecodeString(r.Header.Get(identity.SignatureHeader))
	if err == nil && len(sig) > identity.MaxSignature {
		err = fmt.Errorf("it has %d bytes, at most %d are allowed", len(sig), identity.MaxSignature)
	}
	if err != nil {
		return nil, problem(http.StatusBadRequest, "bad-request", "the signature could not be read", err.Error())
	}
	if len(sig) == 0 {
		return nil, nil
	}
	return sig, nil
}

type installOptions struct {
	uploaded  bool
	signature []byte // the publisher's; nil: none
	progress  func(done, total int64)
}

// install makes the publisher's content the one that is served and registered for its ref.
func (o *Origin) install(ctx context.Context, t permission, u *upload, opt installOptions) (api.Content, error) {
	var h *held
	var err error
	switch {
	case o.holds(u):
		h = o.holding(u.ref)
	case opt.uploaded:
		h, err = o.installUpload(ctx, u, opt.progress)
	default:
		h, err = o.installPlace(ctx, u, opt.progress)
	}
	if err != nil {
		return api.Content{}, err
	}
	h.record.Groups, h.record.Signature = t.Groups, opt.signature
	if err := o.saveRecord(h.record); err != nil {
		return api.Content{}, err
	}
	if err := o.serve(h); err != nil {
		return api.Content{}, err
	}
	if opt.uploaded {
		o.dropUpload(u)
	}
	e, _ := o.current(u.ref)
	c, err := o.register(ctx, e, t.signed)
	c.Size, c.ManifestDigest, c.HashOfHashes = u.manifest.Size, h.record.Manifest.String(), u.manifest.HashOfHashes.Base64()
	return c, err
}

// installPlace hashes what lies in the content's own directory.
func (o *Origin) installPlace(ctx context.Context, u *upload, progress func(done, total int64)) (*held, error) {
	dir, _ := o.dirOf(u.ref)
	m, rec, err := o.hash(ctx, dir, blob.HashOptions{Ref: u.ref, Progress: progress})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem(http.StatusNotFound, "not-there", "the distribution point does not see the files",
			fmt.Sprintf("it looks in %q; put them there, map them with --content %s=DIR, or publish with --to alone to upload them", dir, u.ref))
	}
	if err != nil {
		return nil, err
	}
	if where := FirstDifference(u.manifest, m); where != "" {
		return nil, problem(http.StatusConflict, "differs", "the distribution point has other files", fmt.Sprintf("in %q, %s", dir, where))
	}
	return &held{record: rec, manifest: m, complete: m}, nil
}

// installUpload hashes what was uploaded and moves it to its place.
func (o *Origin) installUpload(ctx context.Context, u *upload, progress func(done, total int64)) (*held, error) {
	staged := u.dir + "/" + stagedTree
	m, rec, err := o.hash(ctx, filepath.Join(o.cfg.Root, filepath.FromSlash(staged)), blob.HashOptions{Ref: u.ref, Progress: progress})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem(http.StatusConflict, "no-upload", "nothing was uploaded", "publish again")
	}
	if err != nil {
		return nil, err
	}
	if where := FirstDifference(u.manifest, m); where != "" {
		// A file that rotted on the way to the disk must not count as sent the next time.
		return nil, errors.Join(problem(http.StatusConflict, "differs", "what was uploaded is not what was hashed", where+"; publish again"),
			o.root.RemoveAll(u.dir))
	}
	if err := o.promote(u); err != nil {
		return nil, fmt.Errorf("origin: move %s to its place: %w", u.ref, err)
	}
	rec.Dir, _ = o.dirOf(u.ref)
	return &held{record: rec, manifest: m, complete: m}, nil
}

// promote gives the staged tree its final name, durably. What was there goes aside first,
// and recoverUploads puts it back if this process ends between the two renames.
func (o *Origin) promote(u *upload) error {
	if err := syncAll(o.root); err != nil {
		return err
	}
	final := pathOf(u.ref)
	if err := o.root.MkdirAll(string(u.ref.ID), 0o755); err != nil {
		return err
	}
	there, err := o.exists(final)
	if err != nil {
		return err
	}
	if there {
		if err := o.root.Rename(final, u.dir+"/"+stagedOld); err != nil {
			return err
		}
	}
	if err := o.root.Rename(u.dir+"/"+stagedTree, final); err != nil {
		if there {
			err = errors.Join(err, o.root.Rename(u.dir+"/"+stagedOld, final))
		}
		return err
	}
	return syncAll(o.root)
}

// dropUpload forgets a finished upload.
func (o *Origin) dropUpload(u *upload) {
	o.mu.Lock()
	delete(o.uploads, u.ref)
	o.mu.Unlock()
	if err := o.root.RemoveAll(u.dir); err != nil {
		o.cfg.Log.Warn("upload directory stays behind", "content", u.ref.String(), "err", err)
	}
}

// lineWriter writes NDJSON, progress not too often.
type lineWriter struct {
	w http.ResponseWriter

	mu   sync.Mutex // guards the following, and writes
	last time.Time
}

func (l *lineWriter) progress(done, total int64) {
	l.mu.Lock()
	late := time.Since(l.last) >= progressEvery
	if late {
		l.last = time.Now()
	}
	l.mu.Unlock()
	if late {
		l.write(Progress{Done: done, Total: total})
	}
}

func (l *lineWriter) write(p Progress) {
	b, err := json.Marshal(p)
	if err != nil {
		panic("origin: progress does not marshal: " + err.Error())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w.Write(append(b, '\n')) // the publisher is gone when this fails
	_ = http.NewResponseController(l.w).Flush()
}

// FirstDifference names the first file, in byte order, in which got is not want, and how; it
// is empty when there is none.
func FirstDifference(want, got *content.Manifest) string {
	i, j := 0, 0
	for i < len(want.Files) || j < len(got.Files) {
		switch {
		case j == len(got.Files) || i < len(want.Files) && want.Files[i].Name < got.Files[j].Name:
			return fmt.Sprintf("file %q is missing", want.Files[i].Name)
		case i == len(want.Files) || got.Files[j].Name < want.Files[i].Name:
			return fmt.Sprintf("file %q is extra", got.Files[j].Name)
		case want.Files[i] != got.Files[j]:
			return fmt.Sprintf("file %q %s", want.Files[i].Name, fileDifference(&want.Files[i], &got.Files[j]))
		}
		i, j = i+1, j+1
	}
	return ""
}

func fileDifference(want, got *content.File) string {
	switch {
	case want.Size != got.Size:
		return fmt.Sprintf("has %d bytes, want %d", got.Size, want.Size)
	case want.SHA256 != got.SHA256 || want.SHA1 != got.SHA1:
		return fmt.Sprintf("has SHA-256 %s, want %s", got.SHA256.Short(), want.SHA256.Short())
	case want.Executable:
		return "is not executable and ought to be"
	default:
		return "is executable and ought not to be"
	}
}
