package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"freshet/internal/content"
	"freshet/internal/guard"
	"freshet/internal/records"
	"freshet/internal/share"
	"freshet/internal/store"
)

// retirer is an agent without a network that holds goods, for tests of what is retired in virtual time.
type retirer struct {
	*Agent
	g     *goods
	entry *store.Entry // in use until its reader releases it
	dir   string       // of the store
	log   *logged
}

// inRetirer runs a test in virtual time.
func inRetirer(t *testing.T, test func(r *retirer)) {
	t.Helper()
	g := oneFile(t, "app", mib)
	synctest.Test(t, func(t *testing.T) {
		dir, log := filepath.Join(t.TempDir(), "cache"), &logged{}
		logger := slog.New(slog.NewTextHandler(log, nil))
		s, err := store.Open(t.Context(), store.Options{Dir: dir, Log: logger})
		if err != nil {
			t.Fatal(err)
		}
		e, err := s.Create(t.Context(), g.manifest, g.hashes, []string{"lab"})
		if err != nil {
			t.Fatal(err)
		}
		for run := range e.Layout().Runs() {
			r := e.Layout().Run(run)
			if err := e.Write(run, g.bytes[r.Offset:r.Offset+int64(r.Len)]); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		a := &Agent{
			log: logger, ctx: ctx, guard: guard.New(guard.Options{Log: logger}), resumed: make(chan struct{}),
			dev:   share.Device{Store: s, Records: records.NewBook(s, logger)},
			holds: map[content.Digest]bool{}, retiring: map[content.Digest]func(){}, shares: map[content.Digest]*share.Share{},
		}
		close(a.resumed)
		test(&retirer{a, g, e, dir, log})
		cancel()
		a.wg.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// rest lets time pass, and all that falls due happen.
func rest(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// has reports whether the entry is in the cache.
func (r *retirer) has(t *testing.T) bool {
	t.Helper()
	has, err := r.dev.Store.Has(r.g.digest())
	if err != nil {
		t.Fatal(err)
	}
	return has
}

// TestRetireTakenBack: what was to go and was taken back stays, also when it is in quarantine again
// by the time of the next try.
func TestRetireTakenBack(t *testing.T) {
	inRetirer(t, func(r *retirer) {
		k, digest := keeper{r.Agent}, r.g.digest()
		k.Retire(r.g.ref, digest, time.Hour)
		rest(time.Second) // somebody reads it
		k.Hold(digest, false)
		k.Hold(digest, true)
		r.entry.Release()
		rest(2 * retireAgain)
		if !r.has(t) || !r.isHeld(digest) {
			t.Errorf("taken back and in quarantine again: in the cache %t, in quarantine %t", r.has(t), r.isHeld(digest))
		}
		k.Retire(r.g.ref, digest, time.Hour)
		rest(0)
		if r.has(t) {
			t.Error("it does not go when that is wanted once more")
		}
	})
}

// TestRetireOrderedTwice: two orders for one entry are one.
func TestRetireOrderedTwice(t *testing.T) {
	inRetirer(t, func(r *retirer) {
		r.entry.Release()
		if err := os.WriteFile(filepath.Join(r.dir, "stock"), nil, 0o600); err != nil { // where a directory is wanted
			t.Fatal(err)
		}
		for range 2 {
			keeper{r.Agent}.Retire(r.g.ref, r.g.digest(), time.Hour)
		}
		rest(2*retireAgain + retirePause)
		if got := strings.Count(r.log.String(), "retiring a stale content"); got != 3 {
			t.Errorf("%d tries in two minutes, want 3:\n%s", got, r.log)
		}
	})
}

// TestReprieved: what was to go and is not any more is served again, though its share had ended and
// somebody read it, and over a restart.
func TestReprieved(t *testing.T) {
	f := newFleet(t)
	g := oneFile(t, "app", mib)
	f.publish(g, f.newDP())
	d := f.device("127.0.0.1")
	d.get(g)
	reader, err := d.agent.dev.Store.Get(g.digest())
	f.want(err)
	keeper{d.agent}.Retire(g.ref, g.digest(), time.Hour)
	waitFor(t, "the share to end", func() bool { return d.agent.shareFor(g.digest()) == nil })
	keeper{d.agent}.Hold(g.digest(), false)
	waitFor(t, "it to be served again", func() bool { entry, serves := d.holds(g); return entry && serves })
	reader.Release()
	d.stop()
	d.start()
	waitFor(t, "it to be served after a restart", func() bool { entry, serves := d.holds(g); return entry && serves })
}

// TestRetireWithoutShare: a content with the same bytes is served when another one went whose share
// an earlier try has ended.
func TestRetireWithoutShare(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	first := makeGoods(t, "first", map[string][]byte{"a": noise(1, mib)})
	second := makeGoods(t, "second", map[string][]byte{"b": noise(1, mib)})
	f.publish(first, origin)
	f.publish(second, origin)
	d := f.device("127.0.0.1")
	d.get(first)
	d.get(second)
	s := d.agent.shareFor(first.digest())
	s.Stop()
	<-s.Ended()
	keeper{d.agent}.Retire(first.ref, first.digest(), time.Hour)
	waitFor(t, "the other content to be served", func() bool { return d.agent.shareFor(second.digest()) != nil })
	waitFor(t, "the first one to go", func() bool { entry, _ := d.holds(first); return !entry })
	if _, err := d.agent.dev.Records.Get(t.Context(), second.digest()); err != nil {
		t.Errorf("the record of the other content: %v", err)
	}
}
