// Package origin is the distribution point: it makes manifests of directories, takes
// uploads from publishers, and serves the bytes of contents by manifest digest.
//
// # Calls
//
//	GET  /bytes/{manifestDigest}              the concatenation of the content's files, or one range of it
//	GET  /bytes/{manifestDigest}/{name}       one file, or one range of it
//	GET  /metadata/…, /pieceshash/…           manifest and hash file, see blob.Metadata
//	PUT  /v1/upload/{id}/{version}            begins an upload: body the manifest, reply Missing
//	PUT  /v1/upload/{id}/{version}/{name}     one file of it, in full
//	POST /lsz/{contentId}/{version}           makes sure of the manifest: api.LszRequest, LszReply
//	POST /v1/publish/{id}/{version}?from=upload|place
//	                                          body the publisher's manifest; reply NDJSON of Progress
//
// A reader shows a device certificate and a grant (blob.Gate), a publisher a ticket, an
// administrator who asks to make sure one of another kind (identity.SignInquiry); without
// one, known and unknown content answer alike. Where no grant can be had, and for what a
// publisher signed whose key is pinned, a device of a group that may read the content needs
// none (see mayReadWithout). A range is a single one; several are refused
// with 416, since this server would have to send all instead. The entity tag is the digest.
//
// Bytes leave only while their files have the stamps they were hashed with. A change shows
// as 409 before the first byte, and as a broken connection after it: never as other bytes.
//
// # Fresh
//
// A directory is watched, and read again when it was quiet for a while after a change, or when
// a device expects other files than its manifest has ([Origin.Watch], POST /lsz). One that
// came after the start, or could not be read, is looked for every now and then; what cannot be
// read as it is, is not read again before something of it changed. What this
// distribution point registered itself it then registers anew, by compare-and-set; what a
// publisher published, or another changed meanwhile, it does not: its manifest is then served
// to those who ask here, and called origin-differs. The old manifest is served until the new one
// takes its place, as far as its files still have their stamps.
//
// # Directories
//
//	ROOT/ID/VERSION/                   a content
//	ROOT/.freshet-upload/ID@VERSION/   an upload: manifest, tree/ (complete files), part-* (incomplete ones)
//	STATE/files/                       manifests and hash files (blob.Files)
//	STATE/contents/ID@VERSION.json     what was hashed, with stamps, so that a restart reads nothing again
package origin

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"freshet/internal/api"
	"freshet/internal/blob"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/wire"
)

// Config is what a distribution point needs. All fields but Mapped, Grace, Publishers,
// Progress, Sign and the times are required.
type Config struct {
	State   string                 // directory, made when missing
	Root    string                 // directory of contents, made when missing
	Mapped  map[content.Ref]string // contents that lie elsewhere, by directory
	Self    wire.DeviceID          // of the own certificate; tickets may name it
	BaseURL string                 // where devices reach this server, https://HOST:PORT/

	Keys  func() []ed25519.PublicKey // that sign grants and tickets
	Grace func() bool                // no service answers; nil: never

	// Publishers returns the publishers' keys that the fleet pins; nil: no signature counts.
	Publishers func() identity.Publishers

	// Sign signs a manifest digest with the certificate's key; nil: nothing is signed.
	Sign func(manifest content.Digest) ([]byte, error)

	Patience   time.Duration // that an asker waits for a reading; 0: 10 s, less than a client waits for a reply
	Quiet      time.Duration // without a change, before a directory is read again; 0: 10 s
	CheckEvery time.Duration // between two looks at all files, since watches can be lost; 0: 5 min

	// Register tells the fleet's server of a content held here.
	Register func(context.Context, api.PublishRequest) (api.Content, error)

	// Progress, if not nil, is told of the hashing at the start, in bytes.
	Progress func(ref content.Ref, done, total int64)
	Log      *slog.Logger
}

// Origin is a distribution point. Its methods may be called from many goroutines.
type Origin struct {
	cfg     Config
	files   *blob.Files
	root    *os.Root
	gate    *blob.Gate
	meta    *blob.Metadata
	records string          // directory
	hashing chan struct{}   // holds one token: one directory is hashed at a time
	news    chan struct{}   // holds a token when fresh was added to
	life    context.Context // of readings that no caller waits for; ends at Close
	end     context.CancelFunc
	running sync.WaitGroup // readings
	loaded  atomic.Bool    // Load has ended, so that what is not served is the watch's

	mu       sync.Mutex // guards the following
	byDigest map[content.Digest]*entry
	byRef    map[content.Ref]*entry
	busy     map[content.Ref]bool    // a publish or upload is changing it
	uploads  map[content.Ref]*upload // begun in this run
	spent    map[[16]byte]time.Time  // nonces of tickets that published, with their expiry
	flights  map[content.Ref]*flight
	fresh    map[content.Ref]bool    // the watch has not looked at it yet: served since, or not at the start
	failed   map[content.Ref]failure // the last reading could not be done
}

// Open opens the directories; nothing is served before Load.
func Open(cfg Config) (*Origin, error) {
	cfg.Patience = cmp.Or(cfg.Patience, 10*time.Second)
	cfg.Quiet = cmp.Or(cfg.Quiet, 10*time.Second)
	cfg.CheckEvery = cmp.Or(cfg.CheckEvery, 5*time.Minute)
	var err error
	if cfg.Root, err = filepath.Abs(cfg.Root); err != nil { // records name it over restarts
		return nil, fmt.Errorf("origin: %w", err)
	}
	records := filepath.Join(cfg.State, "contents")
	for _, d := range []string{records, cfg.Root} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("origin: %w", err)
		}
	}
	files, err := blob.OpenFiles(filepath.Join(cfg.State, "files"))
	if err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	root, err := os.OpenRoot(cfg.Root)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("origin: open root: %w", err), files.Close())
	}
	coder, err := blob.NewCoder()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("origin: %w", err), files.Close(), root.Close())
	}
	o := &Origin{
		cfg: cfg, files: files, root: root, records: records,
		gate:     &blob.Gate{Keys: cfg.Keys, Grace: cfg.Grace},
		hashing:  make(chan struct{}, 1),
		byDigest: map[content.Digest]*entry{},
		byRef:    map[content.Ref]*entry{},
		busy:     map[content.Ref]bool{},
		uploads:  map[content.Ref]*upload{},
		spent:    map[[16]byte]time.Time{},
		flights:  map[content.Ref]*flight{},
		fresh:    map[content.Ref]bool{},
		failed:   map[content.Ref]failure{},
		news:     make(chan struct{}, 1),
	}
	o.life, o.end = context.WithCancel(context.Background())
	o.meta = &blob.Metadata{
		Files: files, Coder: coder, Length: o.length,
		MayReadManifest: o.mayReadManifest, MayReadHashFile: o.mayReadHashFile,
	}
	return o, nil
}

// Close ends readings and releases all files.
func (o *Origin) Close() error {
	o.end()
	o.running.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for _, e := range o.byRef {
		errs = append(errs, e.tree.Close())
	}
	return errors.Join(append(errs, o.files.Close(), o.root.Close())...)
}

// route is one call and who may make it.
type route struct {
	pattern string
	access  access
	handler http.HandlerFunc
}

// access says who may make a call. Each handler sees to it itself, since it depends on the
// content.
type access uint8

const (
	readers    access = iota // devices with a grant, see mayReadManifest
	publishers               // bearers of a ticket for the content
	askers                   // devices, and administrators by a ticket of their own kind for the content
)

// routes is the one table of what is answered here, health excepted.
func (o *Origin) routes() []route {
	return []route{
		{"GET /bytes/{manifestDigest}", readers, o.serveBytes},
		{"GET /bytes/{manifestDigest}/{name...}", readers, o.serveBytes},
		{"GET /metadata/{manifestDigest}", readers, o.meta.ServeManifest},
		{"GET /pieceshash/{hashOfHashes}", readers, o.meta.ServeHashFile},
		{"PUT /v1/upload/{id}/{version}", publishers, o.beginUpload},
		{"PUT /v1/upload/{id}/{version}/{name...}", publishers, o.uploadFile},
		{"POST /v1/publish/{id}/{version}", publishers, o.publish},
		{"POST /lsz/{contentId}/{version}", askers, o.makeSure},
	}
}

// Handler returns the server's routes, health excepted.
func (o *Origin) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range o.routes() {
		mux.HandleFunc(rt.pattern, rt.handler)
	}
	return mux
}

// length returns the bytes of a content held here with this HashOfHashes.
func (o *Origin) length(_ context.Context, hoh content.Digest) (int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.byDigest {
		if e.hoh == hoh {
			return e.size, nil
		}
	}
	return 0, fmt.Errorf("origin: hash file %s: %w", hoh, fs.ErrNotExist)
}

// mayReadManifest decides by the grant, and where none can be had, by the group.
func (o *Origin) mayReadManifest(r *http.Request, d content.Digest) bool {
	if g, ok := o.gate.Grant(r); ok && g.Manifest == d {
		return true
	}
	e, ok := o.lookup(d)
	return ok && o.mayReadWithout(r, e)
}

func (o *Origin) mayReadHashFile(r *http.Request, hoh content.Digest) bool {
	if g, ok := o.gate.Grant(r); ok && g.HashOfHashes == hoh {
		return true
	}
	o.mu.Lock()
	var same []*entry
	for _, e := range o.byRef {
		if e.hoh == hoh {
			same = append(same, e)
		}
	}
	o.mu.Unlock()
	return slices.ContainsFunc(same, func(e *entry) bool { return o.mayReadWithout(r, e) })
}

// lookup returns the content with this manifest digest.
func (o *Origin) lookup(d content.Digest) (*entry, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e, ok := o.byDigest[d]
	return e, ok
}

// current returns the content that is served for ref.
func (o *Origin) current(ref content.Ref) (*entry, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e, ok := o.byRef[ref]
	return e, ok
}

// lock keeps others from changing ref; it reports false when someone is at it.
func (o *Origin) lock(ref content.Ref) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy[ref] {
		return false
	}
	o.busy[ref] = true
	return true
}

func (o *Origin) unlock(ref content.Ref) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.busy, ref)
}

// problem makes an error for web.Fail.
func problem(status int, kind, title, detail string) *api.Problem {
	return &api.Problem{Status: status, Type: kind, Title: title, Detail: detail}
}

// dirOf returns where ref lies, and whether it was mapped there.
func (o *Origin) dirOf(ref content.Ref) (dir string, mapped bool) {
	if d, ok := o.cfg.Mapped[ref]; ok {
		return d, true
	}
	return filepath.Join(o.cfg.Root, filepath.FromSlash(pathOf(ref))), false
}

// pathOf returns ref's directory below ROOT, with slashes.
func pathOf(ref content.Ref) string {
	return fmt.Sprintf("%s/%d", ref.ID, ref.Version)
}

// baseURL returns s with the slash that base URLs end in.
func baseURL(s string) string { return strings.TrimSuffix(s, "/") + "/" }
