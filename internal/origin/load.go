package origin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"freshet/internal/api"
	"freshet/internal/blob"
	"freshet/internal/content"
)

// Load finds the contents under ROOT and the mapped ones, hashes those that are new or have
// changed, and serves them. A content that cannot be hashed is logged and left to Watch; its
// error is among those returned. RegisterAll tells the server of them.
func (o *Origin) Load(ctx context.Context) error {
	if err := o.recoverUploads(); err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	refs, err := o.find()
	if err != nil {
		return fmt.Errorf("origin: list %q: %w", o.cfg.Root, err)
	}
	var errs []error
	for _, ref := range refs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := o.load(ctx, ref); err != nil {
			o.cfg.Log.Error("content is not served", "content", ref.String(), "err", err)
			errs = append(errs, err)
			o.tellWatch(ref)
		}
	}
	o.loaded.Store(true)
	return errors.Join(errs...)
}

// tellWatch has the watch look after a directory that is served now, or ought to be.
func (o *Origin) tellWatch(ref content.Ref) {
	o.mu.Lock()
	o.fresh[ref] = true
	o.mu.Unlock()
	select {
	case o.news <- struct{}{}:
	default: // it will look anyway
	}
}

// find returns what lies under ROOT by the name of a content, and the mapped contents.
func (o *Origin) find() ([]content.Ref, error) {
	refs := maps.Clone(o.cfg.Mapped)
	if refs == nil {
		refs = map[content.Ref]string{}
	}
	ids, err := fs.ReadDir(o.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if _, err := content.ParseID(id.Name()); err != nil || !id.IsDir() {
			continue
		}
		versions, err := fs.ReadDir(o.root.FS(), id.Name())
		if err != nil {
			return nil, err
		}
		for _, v := range versions {
			ref, err := content.ParseRef(id.Name() + "@" + v.Name())
			if err == nil && v.IsDir() && pathOf(ref) == id.Name()+"/"+v.Name() {
				refs[ref] = ""
			}
		}
	}
	return slices.SortedFunc(maps.Keys(refs), func(a, b content.Ref) int {
		return cmp.Or(strings.Compare(string(a.ID), string(b.ID)), cmp.Compare(a.Version, b.Version))
	}), nil
}

func (o *Origin) load(ctx context.Context, ref content.Ref) error {
	dir, _ := o.dirOf(ref)
	old := o.recorded(ctx, ref)
	if old != nil && old.record.Dir == dir {
		if same, err := blob.Unchanged(dir, old.manifest, old.record.Stamps); err == nil && same {
			return o.serve(old)
		}
	}
	h, err := o.readDir(ctx, reading{ref: ref, old: old, progress: func(done, total int64) {
		if o.cfg.Progress != nil {
			o.cfg.Progress(ref, done, total)
		}
	}})
	if err != nil {
		return err
	}
	if err := o.saveRecord(h.record); err != nil {
		return err
	}
	return o.serve(h)
}

// recorded returns what was hashed of ref, nil when it is lost.
func (o *Origin) recorded(ctx context.Context, ref content.Ref) *held {
	r := o.loadRecord(ref)
	if r == nil {
		return nil
	}
	b, err := o.files.Manifest(ctx, r.Manifest)
	if err != nil {
		return nil
	}
	m, err := content.ParseManifest(b)
	if err != nil {
		return nil
	}
	if _, err := o.files.HashFile(ctx, m.HashOfHashes); err != nil {
		return nil
	}
	return &held{record: r, manifest: m, complete: o.completed(ctx, m, r.Complete)}
}

// hash hashes dir and keeps manifest and hash file. Nothing is served of it yet.
func (o *Origin) hash(ctx context.Context, dir string, opt blob.HashOptions) (*content.Manifest, *record, error) {
	select {
	case o.hashing <- struct{}{}:
		defer func() { <-o.hashing }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	m, h, stamps, err := blob.HashTree(ctx, dir, opt)
	switch {
	case err != nil && ctx.Err() == nil:
		return nil, nil, blame(err)
	case err != nil:
		return nil, nil, err
	}
	digest, err := o.files.PutManifest(content.AppendManifest(nil, m))
	if err != nil {
		return nil, nil, err
	}
	if _, err := o.files.PutHashFile(content.AppendHashFileRaw(nil, h)); err != nil {
		return nil, nil, err
	}
	return m, &record{ContentID: opt.Ref.ID, Version: opt.Ref.Version, Dir: dir, Manifest: digest, Stamps: stamps}, nil
}

// serve begins to serve h, in place of what was served for its ref. A digest that was replaced
// answers 409 from then on.
func (o *Origin) serve(h *held) error {
	r := h.record
	old, had := o.current(r.ref())
	kept := had && old.record.Manifest == r.Manifest && old.record.Dir == r.Dir && slices.Equal(old.record.Stamps, r.Stamps)
	e := newEntry(h, nil)
	if kept {
		e.tree = old.tree // its readers go on
		e.state, e.known = old.standing(), old.told()
		e.state.groups, e.state.signature = r.Groups, r.Signature
	} else {
		var err error
		if e.tree, err = blob.OpenTree(r.Dir, h.manifest, r.Stamps); err != nil {
			return err
		}
	}
	o.mu.Lock()
	if had && old.record.Manifest != r.Manifest {
		o.byDigest[old.record.Manifest] = old.tombstone()
	}
	o.byRef[r.ref()], o.byDigest[r.Manifest] = e, e
	o.mu.Unlock()
	o.tellWatch(r.ref())
	o.cfg.Log.Info("content is served", "content", r.ref().String(), "manifest", r.Manifest.Short(), "bytes", e.size, "files", len(h.manifest.Files))
	if !had || kept {
		return nil
	}
	old.gone.Store(true)
	return old.tree.Close()
}

// tombstone returns what is left of e when another manifest takes its place.
func (e *entry) tombstone() *entry {
	t := &entry{record: record{ContentID: e.record.ContentID, Version: e.record.Version, Manifest: e.record.Manifest}, hoh: e.hoh, size: e.size}
	t.gone.Store(true)
	return t
}

// RegisterAll tells the server of each content that it does not know yet, and reports whether
// it knows all now. One that the server refuses is not offered again in this run: it is
// served to whoever has a grant for it, or asks for it here, and the log says why.
func (o *Origin) RegisterAll(ctx context.Context) bool {
	o.mu.Lock()
	entries := slices.Collect(maps.Values(o.byRef))
	o.mu.Unlock()
	all := true
	for _, e := range entries {
		if !e.told() && !e.gone.Load() {
			all = o.tryRegister(ctx, e) && all
		}
	}
	return all
}

// register sends manifest, hash file and address of a content to the server, for the
// publisher who showed the ticket, or for this server itself: then what it replaces must be
// what was registered last.
func (o *Origin) register(ctx context.Context, e *entry, ticket []byte) (api.Content, error) {
	manifest, err := o.files.Manifest(ctx, e.record.Manifest)
	if err != nil {
		return api.Content{}, err
	}
	raw, err := o.files.HashFile(ctx, e.hoh)
	if err != nil {
		return api.Content{}, err
	}
	e.telling.Lock()
	defer e.telling.Unlock()
	s := e.standing()
	if ticket == nil && e.told() { // by another, while this one waited
		return api.Content{Generation: s.generation}, nil
	}
	p := api.PublishRequest{
		Manifest: manifest, HashFile: raw, Origins: []string{baseURL(o.cfg.BaseURL)}, Groups: s.groups,
		Signature: s.signature, Ticket: ticket,
	}
	if ticket == nil && !s.known.IsZero() && s.known != e.record.Manifest {
		p.Replaces = s.known.String()
	}
	c, err := o.cfg.Register(ctx, p)
	var refused *api.Problem
	if p.Replaces != "" && errors.As(err, &refused) && refused.Type == "changed" {
		p.Replaces = e.record.Manifest.String() // maybe by this very call, whose reply was lost
		c, err = o.cfg.Register(ctx, p)
	}
	if err != nil {
		return api.Content{}, fmt.Errorf("origin: register %s: %w", e.record.ref(), err)
	}
	s = standing{known: e.record.Manifest, generation: c.Generation, groups: s.groups, signature: s.signature}
	if len(c.Signature) > 0 {
		s.signature = c.Signature // published elsewhere, maybe
	}
	if ticket == nil && c.ContentId != "" {
		s.groups = c.Groups // the server's word counts
	}
	e.registered(s)
	o.cfg.Log.Info("content is registered", "content", e.record.ref().String(), "manifest", e.record.Manifest.Short(), "generation", c.Generation)
	r := e.keep()
	return c, o.saveRecord(&r)
}

// exists reports whether name is there below ROOT.
func (o *Origin) exists(name string) (bool, error) {
	_, err := o.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
