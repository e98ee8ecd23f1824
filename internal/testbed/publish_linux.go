package testbed

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"aead.dev/minisign"

	"freshet/internal/blob"
	"freshet/internal/content"
)

// registerTime is how long a distribution point may take to register what it found.
const registerTime = time.Minute

// place is a content's directory at the distribution point.
func (b *bed) place(content string) string {
	return filepath.Join(b.root(), content, strconv.Itoa(version))
}

// stepPublish makes files in the distribution point's directory and publishes them.
func (b *bed) stepPublish(ctx context.Context, s *Step) error {
	if s.Times > 0 || s.Found || s.Old {
		return b.leave(ctx, s)
	}
	p, err := b.make(ctx, s.Content, s)
	if err != nil {
		return err
	}
	return b.register(ctx, p)
}

// make makes the first issue of a content.
func (b *bed) make(ctx context.Context, name string, s *Step) (*published, error) {
	p := &published{recipe: recipe{name: name, size: s.Size, files: s.Files}, signed: s.Signed}
	first, err := p.write(ctx, b.place(name))
	if err != nil {
		return nil, err
	}
	p.issues = []*issue{first}
	b.contents[name] = p
	return p, nil
}

// register publishes what lies in a content's directory, as a publisher does.
func (b *bed) register(ctx context.Context, p *published) error {
	args := []string{"publish", b.place(p.name), "--id", p.name, "--version", strconv.Itoa(version), "--in-place",
		"--token", b.token("publish"), "--to", "https://" + originAddr.String() + ":7444/"}
	if p.signed {
		args = append(args, "--sign", b.signingKey())
	}
	_, err := b.admin(ctx, args...)
	return err
}

// stepChange gives a content another issue: published, or in the distribution point's directory
// alone.
func (b *bed) stepChange(ctx context.Context, s *Step) error {
	p := b.contents[s.Content]
	p.changes = append(p.changes, s.Percent)
	next, err := p.write(ctx, b.place(p.name))
	if err != nil {
		return err
	}
	p.issues = append(p.issues, next)
	if s.Verb == "overwrite" {
		return nil
	}
	return b.register(ctx, p)
}

// expected returns the metadata that a get brings, and how it is compared.
func (b *bed) expected(ctx context.Context, p *published, which Issue) (text []byte, match content.Match, err error) {
	is, n := p.current(), p.files
	switch which {
	case OldIssue:
		if len(p.issues) < 2 {
			return nil, match, fmt.Errorf("%s was published once: there is no issue of before", p.name)
		}
		is = p.issues[len(p.issues)-2]
	case NextIssue:
		next := p.recipe
		next.changes = append(slices.Clone(p.changes), 1)
		if is, err = next.write(ctx, filepath.Join(b.dir, "never", p.name)); err != nil {
			return nil, match, err
		}
	case PartIssue:
		n, match = (n+1)/2, content.Subset
	}
	text, err = is.metadata(n)
	return text, match, err
}

// leave makes contents while the distribution point does not run, which then finds and registers
// them by itself.
func (b *bed) leave(ctx context.Context, s *Step) error {
	origin := b.process("origin")
	if err := b.end(origin, syscall.SIGTERM); err != nil {
		return err
	}
	names := b.s.names(s.Content)
	for _, name := range names {
		p, err := b.make(ctx, name, s)
		if err == nil && s.Old {
			err = b.age(p)
		}
		if err != nil {
			return err
		}
	}
	if err := b.launch(ctx, origin); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, registerTime, fmt.Errorf("the distribution point did not register all contents in %v", registerTime))
	defer cancel()
	return b.poll(ctx, 5*askEvery, func() (bool, error) {
		all, err := b.admin(ctx, "content", "list", "--json", "--token", b.token("publish"))
		for _, name := range names {
			if !strings.Contains(string(all), strconv.Quote(name)) {
				return false, err
			}
		}
		return true, err
	})
}

// age makes a content's manifest and record in the distribution point's state as one of before
// SHA-1 left them.
func (b *bed) age(p *published) error {
	is := p.current()
	old := *is.manifest
	old.Files = slices.Clone(old.Files)
	for i := range old.Files {
		old.Files[i].SHA1 = content.SHA1{}
	}
	state := b.process("origin").state
	files, err := blob.OpenFiles(filepath.Join(state, "files"))
	if err != nil {
		return err
	}
	defer files.Close()
	if is.digest, err = files.PutManifest(content.AppendManifest(nil, &old)); err != nil {
		return err
	}
	if _, err := files.PutHashFile(content.AppendHashFileRaw(nil, is.hashFile)); err != nil {
		return err
	}
	record, err := json.Marshal(map[string]any{
		"contentId": p.name, "version": version, "dir": b.place(p.name), "manifestDigest": is.digest, "stamps": is.stamps,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(state, "contents", ref(p.name)+".json"), record, 0o600)
}

func (b *bed) signingKey() string { return filepath.Join(b.dir, "publisher.key") }

// pin makes the publisher's key, where a content is signed, and has the whole fleet pin it.
func (b *bed) pin(ctx context.Context) error {
	public, key, err := minisign.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("testbed: publisher's key: %w", err)
	}
	var pins []string
	for i := range b.s.Steps {
		if st := &b.s.Steps[i]; st.Signed {
			pins = append(pins, st.Content+"="+public.String())
		}
	}
	if len(pins) == 0 {
		return nil
	}
	text, err := key.MarshalText()
	if err == nil {
		err = os.WriteFile(b.signingKey(), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("testbed: publisher's key: %w", err)
	}
	_, err = b.admin(ctx, "setting", "set", "publisherKeys", strings.Join(pins, ","), "--token", b.token("admin"))
	return err
}
