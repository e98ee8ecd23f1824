package origin

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"sort"
	"strings"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/web"
)

const (
	uploadDir     = ".freshet-upload" // below ROOT
	stagedTree    = "tree"            // complete files
	stagedOld     = "old"             // what a publish replaces, for a moment
	stagedName    = "manifest"
	partPrefix    = "part-"         // incomplete files
	uploadTimeout = 2 * time.Minute // without a byte
)

// Missing answers the beginning of an upload: the files to send, by their place in the
// manifest. The others are here already, with the right SHA-256.
type Missing struct {
	Files []int `json:"files"`
}

// upload is a directory below uploadDir that receives a content.
type upload struct {
	ref      content.Ref
	dir      string // below ROOT
	manifest *content.Manifest
	bytes    []byte // of manifest
}

func stagingOf(ref content.Ref) string { return uploadDir + "/" + ref.String() }

func (u *upload) staged(name string) string { return u.dir + "/" + stagedTree + "/" + name }

// find returns the manifest's entry of this name and its place.
func find(m *content.Manifest, name string) (int, bool) {
	i := sort.Search(len(m.Files), func(i int) bool { return m.Files[i].Name >= name })
	return i, i < len(m.Files) && m.Files[i].Name == name
}

// beginUpload takes the manifest, which bounds all that follows, and says what is missing.
func (o *Origin) beginUpload(w http.ResponseWriter, r *http.Request) {
	missing, err := o.begin(w, r)
	if err != nil {
		web.Fail(w, r, diskProblem(err))
		return
	}
	web.WriteJSON(w, Missing{missing})
}

func (o *Origin) begin(w http.ResponseWriter, r *http.Request) ([]int, error) {
	t, err := o.permit(r)
	if err != nil {
		return nil, err
	}
	if dir, mapped := o.dirOf(t.Ref); mapped {
		return nil, problem(http.StatusConflict, "mapped", "this content is not uploaded",
			fmt.Sprintf("the distribution point maps %s to its directory %q; put the files there and publish with --in-place", t.Ref, dir))
	}
	u, err := readManifest(w, r, t.Ref)
	if err != nil {
		return nil, err
	}
	if !o.lock(t.Ref) {
		return nil, busy(t.Ref)
	}
	defer o.unlock(t.Ref)
	var missing []int
	if !o.holds(u) {
		if missing, err = o.prepare(u); err != nil {
			return nil, fmt.Errorf("origin: begin upload of %s: %w", t.Ref, err)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.uploads[t.Ref] = u
	return missing, nil
}

func busy(ref content.Ref) error {
	return problem(http.StatusConflict, "busy", "another publish is under way", fmt.Sprintf("%s is being published; try again when that is done", ref))
}

// readManifest reads the publisher's manifest from the body.
func readManifest(w http.ResponseWriter, r *http.Request, ref content.Ref) (*upload, error) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(uploadTimeout)) // not every writer has one
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, content.MaxManifest))
	if err != nil {
		return nil, problem(http.StatusBadRequest, "bad-request", "the manifest could not be read", err.Error())
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	m, err := content.ParseManifest(b)
	if err == nil && m.Ref != ref {
		err = fmt.Errorf("it is the manifest of %s, not of %s", m.Ref, ref)
	}
	if err != nil {
		return nil, problem(http.StatusBadRequest, "bad-manifest", "the manifest is not one", err.Error())
	}
	return &upload{ref: ref, dir: stagingOf(ref), manifest: m, bytes: b}, nil
}

// holds reports whether the upload's content is served from ROOT already.
func (o *Origin) holds(u *upload) bool {
	e, ok := o.current(u.ref)
	return ok && e.record.Manifest == content.DigestOf(u.bytes) && e.tree.Check() == nil
}

// prepare makes the staging directory fit u: files of an earlier try stay when u has them.
func (o *Origin) prepare(u *upload) ([]int, error) {
	if err := o.root.MkdirAll(u.dir+"/"+stagedTree, 0o755); err != nil {
		return nil, err
	}
	var old *content.Manifest
	if b, err := o.root.ReadFile(u.dir + "/" + stagedName); err == nil {
		old, _ = content.ParseManifest(b) // nil when damaged: then nothing stays
	}
	have, err := o.sweep(u, old)
	if err != nil {
		return nil, err
	}
	if err := o.root.WriteFile(u.dir+"/"+stagedName+".new", u.bytes, 0o644); err != nil {
		return nil, err
	}
	if err := o.root.Rename(u.dir+"/"+stagedName+".new", u.dir+"/"+stagedName); err != nil {
		return nil, err
	}
	missing := make([]int, 0, len(u.manifest.Files)-len(have))
	for i := range u.manifest.Files {
		if !have[i] {
			missing = append(missing, i)
		}
	}
	return missing, nil
}

// sweep removes from the staging directory what u has no use for, and returns the places of
// the files that are complete. A staged file has the bytes that old says.
func (o *Origin) sweep(u *upload, old *content.Manifest) (map[int]bool, error) {
	have, top := map[int]bool{}, u.dir+"/"+stagedTree
	var drop []string // files, and directories, which go when they are empty
	err := fs.WalkDir(o.root.FS(), u.dir, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if at == u.dir || at == top || at == u.dir+"/"+stagedName {
			return nil
		}
		name, inTree := strings.CutPrefix(at, top+"/")
		if i, ok := find(u.manifest, name); ok && inTree && d.Type().IsRegular() && same(old, &u.manifest.Files[i]) {
			if info, err := o.root.Lstat(at); err == nil && info.Size() == u.manifest.Files[i].Size {
				have[i] = true
				return nil
			}
		}
		drop = append(drop, at)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := len(drop) - 1; i >= 0; i-- { // what lies in a directory comes after it
		err := o.root.Remove(drop[i])
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !isDir(o.root, drop[i]) {
			return nil, err
		}
	}
	return have, nil
}

func isDir(root *os.Root, name string) bool {
	info, err := root.Lstat(name)
	return err == nil && info.IsDir()
}

// same reports whether m has this very file.
func same(m *content.Manifest, f *content.File) bool {
	if m == nil {
		return false
	}
	i, ok := find(m, f.Name)
	return ok && m.Files[i] == *f
}

// uploadFile takes one file whole: what arrives is hashed, and gets its name when it is what
// the manifest says.
func (o *Origin) uploadFile(w http.ResponseWriter, r *http.Request) {
	if err := o.receive(w, r); err != nil {
		web.Fail(w, r, diskProblem(err))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (o *Origin) receive(w http.ResponseWriter, r *http.Request) error {
	t, err := o.permit(r)
	if err != nil {
		return err
	}
	o.mu.Lock()
	u, busyNow := o.uploads[t.Ref], o.busy[t.Ref]
	o.mu.Unlock()
	if busyNow {
		return busy(t.Ref)
	}
	if u == nil {
		return problem(http.StatusConflict, "no-upload", "no upload was begun", "the manifest comes first; publish again")
	}
	name := r.PathValue("name")
	i, ok := find(u.manifest, name) // ParseManifest has applied CheckName to all of them
	if !ok {
		return problem(http.StatusBadRequest, "bad-name", "the manifest has no such file", fmt.Sprintf("%q", name))
	}
	f := &u.manifest.Files[i]
	if r.ContentLength != f.Size {
		return problem(http.StatusBadRequest, "bad-length", "the file has another length",
			fmt.Sprintf("%q has %d bytes in the manifest, the request %d", name, f.Size, r.ContentLength))
	}
	if err := o.store(w, r, u, f); err != nil {
		return fmt.Errorf("origin: upload %s: file %q: %w", u.ref, name, err)
	}
	return nil
}

// store writes the body under a name of its own and renames it when it is right.
func (o *Origin) store(w http.ResponseWriter, r *http.Request, u *upload, f *content.File) (err error) {
	part := u.dir + "/" + partPrefix + rand.Text()
	mode := fs.FileMode(0o644)
	if f.Executable {
		mode = 0o755
	}
	out, err := o.root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			o.root.Remove(part) // the next upload sweeps what stays
		}
	}()
	sum := sha256.New()
	n, err := copyBody(w, r, io.MultiWriter(out, sum))
	if err == nil && syncEach {
		err = out.Sync()
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if got := content.Digest(sum.Sum(nil)); n != f.Size || got != f.SHA256 {
		return problem(http.StatusUnprocessableEntity, "bad-file", "the file is not the one in the manifest",
			fmt.Sprintf("%q arrived with %d bytes and SHA-256 %s, the manifest says %d and %s; did it change after it was hashed?", f.Name, n, got.Short(), f.Size, f.SHA256.Short()))
	}
	if err := o.root.MkdirAll(path.Dir(u.staged(f.Name)), 0o755); err != nil {
		return err
	}
	return o.root.Rename(part, u.staged(f.Name))
}

// copyBody copies the body, which the server holds to its Content-Length.
func copyBody(w http.ResponseWriter, r *http.Request, to io.Writer) (int64, error) {
	control := http.NewResponseController(w)
	buf := sendBuffers.Get().(*[]byte)
	defer sendBuffers.Put(buf)
	for n := int64(0); ; {
		_ = control.SetReadDeadline(time.Now().Add(uploadTimeout)) // not every writer has one
		got, err := r.Body.Read(*buf)
		if _, err := to.Write((*buf)[:got]); err != nil {
			return n, err
		}
		n += int64(got)
		if err == io.EOF {
			_ = control.SetReadDeadline(time.Time{})
			return n, nil
		}
		if err != nil {
			return n, problem(http.StatusBadRequest, "bad-body", "the file did not arrive whole", err.Error())
		}
	}
}

// diskProblem turns a full disk into an answer that says so.
func diskProblem(err error) error {
	var p *api.Problem
	if errors.As(err, &p) || !isDiskFull(err) {
		return err
	}
	return problem(http.StatusInsufficientStorage, "disk-full", "the distribution point's disk is full", "make room there and publish again; what has arrived is kept")
}

// recoverUploads puts back a content that a publish had moved away when the process ended
// before its successor was in place.
func (o *Origin) recoverUploads() error {
	dirs, err := fs.ReadDir(o.root.FS(), uploadDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range dirs {
		ref, err := content.ParseRef(d.Name())
		if err != nil || ref.Version == 0 {
			continue
		}
		old, err := o.exists(stagingOf(ref) + "/" + stagedOld)
		if err != nil || !old {
			continue
		}
		final, err := o.exists(pathOf(ref))
		if err != nil {
			return err
		}
		if final {
			err = o.root.RemoveAll(stagingOf(ref))
		} else if err = o.root.MkdirAll(string(ref.ID), 0o755); err == nil {
			err = o.root.Rename(stagingOf(ref)+"/"+stagedOld, pathOf(ref))
		}
		if err != nil {
			return fmt.Errorf("recover upload of %s: %w", ref, err)
		}
	}
	return nil
}
