package agent

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"freshet/internal/metadata"
)

// soon is a patience that a test needs not wait for.
var soon = metadata.Patience{Foreground: time.Millisecond, Background: 2 * time.Millisecond}

// patient is one in which an origin answers, also on a busy machine.
var patient = metadata.Patience{Foreground: time.Second, Background: time.Second}

// lose takes the hash file of goods away from the server.
func (f *fleet) lose(g *goods) {
	f.Helper()
	f.want(os.Remove(filepath.Join(f.state, "metadata", "hashfiles", g.parsed.HashOfHashes.String())))
}

// hashFiles lets a distribution point answer for hash files.
func (d *dp) hashFiles(answer func(w http.ResponseWriter, r *http.Request)) { d.meta.Store(&answer) }

func gives(b []byte) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write(b) }
}

// several is a content of files of all kinds; its third file is "c/two", of two pieces.
func several(t *testing.T) *goods {
	return makeGoods(t, "app", map[string][]byte{
		"a/small": noise(1, 5000), "b/empty": {}, "c/two": noise(2, mib+77), "d/one": {1}, "e/big": noise(3, 3*mib),
	})
}

// simpleDevice starts a device that does without a hash file soon.
func (f *fleet) simpleDevice(local string) *device {
	f.Helper()
	d := f.enrol(local, f.token("join"))
	d.patience = soon
	d.start()
	return d
}

// TestSimpleMode: without a good hash file from anybody a content comes from the origin all
// the same; then the device gives it to others, hash file included.
func TestSimpleMode(t *testing.T) {
	silent := make(chan struct{})
	defer close(silent)
	for name, c := range map[string]struct {
		answer func(g *goods) func(http.ResponseWriter, *http.Request)
		reason string
	}{
		"not found": {nil, "no giver has a good hash file"},
		"broken": {func(*goods) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusInternalServerError) }
		}, "no giver has a good hash file"},
		"wrong": {func(g *goods) func(http.ResponseWriter, *http.Request) {
			return gives(append(bytes.Clone(g.hashes[32:]), g.hashes[:32]...))
		}, "HashOfHashes"},
		"short": {func(g *goods) func(http.ResponseWriter, *http.Request) { return gives(g.hashes[32:]) }, "hash file from"},
		"silent": {func(*goods) func(http.ResponseWriter, *http.Request) {
			return func(_ http.ResponseWriter, r *http.Request) {
				select {
				case <-silent:
				case <-r.Context().Done():
				}
			}
		}, "nobody who has the hash file answers"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			origin, g := f.newDP(), several(t)
			f.publish(g, origin)
			f.lose(g)
			if c.answer != nil {
				origin.hashFiles(c.answer(g))
			}
			d := f.enrol("127.0.0.1", f.token("join"))
			d.patience = soon
			if name != "silent" {
				d.patience = patient
			}
			d.start()
			p := d.get(g)
			if !strings.Contains(p.Simple, c.reason) || strings.Contains(p.Simple, "\n") {
				t.Errorf("reason %q, want %q in it", p.Simple, c.reason)
			}
			if p.FromOrigin != p.Size || p.FromPeers != 0 || p.FromCache != 0 || p.Files != len(g.files) {
				t.Errorf("progress %+v", p)
			}
			if st := d.status(g); st.State != "complete" || st.Simple != "" || st.FromOrigin != p.Size {
				t.Errorf("status %+v", st)
			}
			d.joined(g)
			if p := f.device("127.0.0.2").get(g); p.FromPeers == 0 || p.Simple != "" {
				t.Errorf("what another device got of the holder: %+v", p)
			}
		})
	}
}

// TestSimpleModeLeft lets a good hash file appear in mid-download: what came is kept, and the
// rest comes the normal way.
func TestSimpleModeLeft(t *testing.T) {
	f := newFleet(t)
	origin, g := f.newDP(), oneFile(t, "app", 6*mib)
	f.publish(g, origin)
	f.lose(g)
	origin.spoiled(origin.halfThenHang)
	d := f.simpleDevice("127.0.0.1")
	w := d.begin(g.ref)
	waitFor(t, "half of it in simple mode", func() bool {
		st := d.status(g)
		return st.Held == 3*mib && st.Simple != "" && st.State == "partial"
	})
	s := d.agent.shareOf(g.parsed.HashOfHashes)
	if !s.Alone() || w.progress().Simple == "" {
		t.Errorf("in simple mode: alone %v, progress %+v", s.Alone(), w.progress())
	}
	waitFor(t, "the device to leave the array", func() bool { return strings.Contains(f.log.String(), "path=/leave/") })
	origin.hashFiles(gives(g.hashes))
	waitFor(t, "simple mode to be left", func() bool { st := d.status(g); return st.Held >= 3*mib && st.Simple == "" })
	origin.spoil.Store(nil)
	p := w.right(g)
	if p.Simple != "" || p.FromOrigin != p.Size || p.FromCache != 0 {
		t.Errorf("progress %+v", p)
	}
	if sent, _ := origin.counts(); sent > p.Size+mib {
		t.Errorf("the origin sent %d bytes, want %d and at most a run more", sent, p.Size)
	}
	if s.Alone() || len(d.agent.dev.Store.Drafts()) != 0 {
		t.Errorf("after simple mode: alone %v, %d drafts", s.Alone(), len(d.agent.dev.Store.Drafts()))
	}
}

// TestSimpleModeRestart: simple mode goes on after a restart without the wait before it; a
// hash file that is there by then finds what came before.
func TestSimpleModeRestart(t *testing.T) {
	for _, found := range []bool{false, true} {
		t.Run(fmt.Sprintf("hash file found %v", found), func(t *testing.T) {
			f := newFleet(t)
			origin, g := f.newDP(), oneFile(t, "app", 6*mib)
			f.publish(g, origin)
			f.lose(g)
			origin.spoiled(origin.halfThenHang)
			d := f.simpleDevice("127.0.0.1")
			w := d.begin(g.ref)
			waitFor(t, "half of it", func() bool { return d.status(g).Held == 3*mib })
			d.stop()
			if err := w.wait(); err == nil {
				t.Fatal("the download ended well")
			}
			origin.spoil.Store(nil)
			if found {
				origin.hashFiles(gives(g.hashes))
			}
			d.patience = metadata.Patience{Foreground: time.Hour, Background: time.Hour}
			d.start()
			waitFor(t, "the rest", func() bool { st := d.status(g); return st.State == "complete" && st.Held == st.Size })
			if sent, _ := origin.counts(); !about(sent, int64(len(g.bytes))) {
				t.Errorf("the origin sent %d bytes, want %d", sent, len(g.bytes))
			}
			if p := d.get(g); p.FromOrigin != 0 || (p.Simple == "") != found {
				t.Errorf("progress %+v", p)
			}
		})
	}
}

// TestSimpleModeGivenUp: what nobody wants any more goes with the next start.
func TestSimpleModeGivenUp(t *testing.T) {
	f := newFleet(t)
	origin, g := f.newDP(), oneFile(t, "app", 6*mib)
	f.publish(g, origin)
	f.lose(g)
	origin.spoiled(origin.halfThenHang)
	d := f.simpleDevice("127.0.0.1")
	w := d.begin(g.ref)
	waitFor(t, "half of it", func() bool { return d.status(g).Held == 3*mib })
	w.stop()
	w.fails("context canceled")
	waitFor(t, "the share to end", func() bool { return d.agent.shareOf(g.parsed.HashOfHashes) == nil })
	if n := len(d.agent.dev.Store.Drafts()); n != 1 {
		t.Errorf("%d drafts, want one that another try goes on with", n)
	}
	d.stop()
	d.start()
	waitFor(t, "the draft to be removed", func() bool { return len(d.agent.dev.Store.Drafts()) == 0 })
}

// TestSimpleModeWrongFile: a file whose SHA-256 is wrong is read once more past caches, then
// elsewhere, and named when nobody has a right one.
func TestSimpleModeWrongFile(t *testing.T) {
	for name, c := range map[string]struct {
		origins int
		stale   bool // only what comes without no-cache is wrong
		fails   bool
	}{
		"one origin":     {origins: 1, fails: true},
		"a stale cache":  {origins: 1, stale: true},
		"another origin": {origins: 2},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			g := several(t)
			var origins []*dp
			for range c.origins {
				origins = append(origins, f.newDP())
			}
			f.publish(g, origins...)
			f.lose(g)
			wrong := bytes.Clone(g.bytes)
			wrong[5000+mib+3] ^= 1 // of the second piece of "c/two"
			var fresh atomic.Int32
			origins[0].spoiled(func(w http.ResponseWriter, r *http.Request, g *goods) bool {
				var from, to int64
				if r.Header.Get("Cache-Control") == "no-cache" {
					fresh.Add(1)
					if c.stale {
						return false
					}
				}
				if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil {
					return false
				}
				head(w, from, to, int64(len(wrong)))
				origins[0].send(w, r, wrong[from:to+1])
				return true
			})
			d := f.simpleDevice("127.0.0.1")
			w := d.begin(g.ref)
			if c.fails {
				w.fails("simple mode", `the SHA-256 of "c/two"`, "publish the content anew")
			} else {
				w.right(g)
				waitFor(t, "the wrong bytes to be counted", func() bool { return d.status(g).Wrong > 0 })
			}
			if n := fresh.Load(); n != 1 {
				t.Errorf("%d requests past caches, want 1", n)
			}
		})
	}
}

// TestSimpleModeHostile: no reply to another question is joined to the content.
func TestSimpleModeHostile(t *testing.T) {
	for name, spoil := range map[string]func(d *dp, w http.ResponseWriter, r *http.Request, g *goods, from, to int64){
		"all for a range": func(d *dp, w http.ResponseWriter, r *http.Request, g *goods, _, _ int64) {
			d.send(w, r, append(bytes.Clone(g.bytes), 1))
		},
		"another range": func(d *dp, w http.ResponseWriter, r *http.Request, g *goods, from, to int64) {
			head(w, from+1, to, int64(len(g.bytes)))
			d.send(w, r, g.bytes[from+1:to+1])
		},
		"another length": func(d *dp, w http.ResponseWriter, r *http.Request, g *goods, from, to int64) {
			head(w, from, to, int64(len(g.bytes))+1)
			d.send(w, r, g.bytes[from:to+1])
		},
		"changed": func(_ *dp, w http.ResponseWriter, _ *http.Request, _ *goods, _, _ int64) {
			w.WriteHeader(http.StatusConflict)
		},
		"truncated": func(d *dp, w http.ResponseWriter, r *http.Request, g *goods, from, to int64) {
			head(w, from, to, int64(len(g.bytes)))
			d.send(w, r, g.bytes[from:min(to, from+mib+100)])
		},
		"endless": func(d *dp, w http.ResponseWriter, r *http.Request, g *goods, from, to int64) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(g.bytes)))
			w.WriteHeader(http.StatusPartialContent)
			d.send(w, r, append(bytes.Clone(g.bytes[from:to+1]), noise(9, mib)...))
		},
		"busy": func(_ *dp, w http.ResponseWriter, _ *http.Request, _ *goods, _, _ int64) {
			w.WriteHeader(http.StatusServiceUnavailable)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			bad, good, g := f.newDP(), f.newDP(), several(t)
			f.publish(g, bad, good)
			f.lose(g)
			bad.spoiled(func(w http.ResponseWriter, r *http.Request, g *goods) bool {
				var from, to int64
				if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil {
					return false
				}
				spoil(bad, w, r, g, from, to)
				return true
			})
			if p := f.simpleDevice("127.0.0.1").get(g); p.FromOrigin != p.Size || p.Simple == "" {
				t.Errorf("progress %+v", p)
			}
		})
	}
}

// TestSimpleModeNeedsManifest: without a believed manifest the download waits.
func TestSimpleModeNeedsManifest(t *testing.T) {
	f := newFleet(t)
	origin, g := f.newDP(), several(t)
	f.publish(g, origin)
	f.lose(g)
	name := filepath.Join(f.state, "metadata", "manifests", g.digest().String())
	f.want(os.Remove(name))
	d := f.simpleDevice("127.0.0.1")
	w := d.begin(g.ref)
	waitFor(t, "it to wait for the manifest", func() bool { return strings.Contains(w.progress().Waits, "no giver has the manifest") })
	if st := d.status(g); st.Simple != "" || !strings.Contains(st.Waits, "manifest") {
		t.Errorf("status %+v", st)
	}
	f.want(os.WriteFile(name, g.manifest, 0o600))
	if p := w.right(g); p.Simple == "" {
		t.Errorf("progress %+v", p)
	}
}

// TestSimplePolicy: DODownloadMode 99 is simple mode from the start; neither arrays nor hash
// files are asked for, and no peer is let in.
func TestSimplePolicy(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	small := several(t) // its metadata comes with Content Policy's reply
	files := map[string][]byte{"big": noise(7, 2*mib+1)}
	for i := range 150 {
		files[fmt.Sprintf("a rather long name in a directory/%d", i)] = noise(byte(i), 100+i)
	}
	large := makeGoods(t, "large", files)
	f.publish(small, origin)
	f.publish(large, origin)
	origin.hashFiles(func(http.ResponseWriter, *http.Request) { t.Error("the hash file was asked for") })
	d := f.enrol("127.0.0.1", f.token("join"))
	d.set = map[string]string{"DODownloadMode": "99"}
	d.start()
	for _, g := range []*goods{small, large} {
		p := d.get(g)
		if !strings.Contains(p.Simple, "DODownloadMode is 99") || p.FromOrigin != p.Size {
			t.Errorf("progress %+v", p)
		}
		if !d.agent.shareOf(g.parsed.HashOfHashes).Alone() {
			t.Error("peers are let in")
		}
	}
	asked := f.log.String()
	for _, path := range []string{"/join/", "/leave/", "/v2/content/", "/pieceshash/", "path=/content/app ", "path=/content/large "} {
		if strings.Contains(asked, path) {
			t.Errorf("the server was asked for %s", path)
		}
	}
	if !strings.Contains(asked, "contentpolicy") {
		t.Error("the server's log does not tell what it was asked for")
	}
}
