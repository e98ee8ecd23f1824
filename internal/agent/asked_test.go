package agent

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/deliver"
)

const toolURL = "https://dl.example/tool.zip"

// ask downloads what req names as a user, into the cache alone.
func (d *device) ask(req Request, uid int) error {
	d.f.Helper()
	ctx, cancel := context.WithTimeout(d.f.Context(), patience)
	defer cancel()
	req.Owner = deliver.Owner{UID: uid}
	return d.agent.Download(ctx, req, func(Progress) {})
}

func (f *fleet) knownBy(g *goods, urls ...string) {
	f.Helper()
	_, err := f.admin.SetURLs(f.Context(), g.ref, urls)
	f.want(err)
}

// TestAskedByURL: a content comes by a URL that it is published under, also when nobody can be
// asked any more; a URL of nothing is named.
func TestAskedByURL(t *testing.T) {
	f := newFleet(t)
	p := f.newDP()
	g := oneFile(t, "tool", 3<<20)
	f.publish(g, p)
	f.knownBy(g, toolURL)
	d := f.device("127.0.2.1")
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	f.want(err)
	defer root.Close()
	f.want(d.ask(Request{URL: toolURL, Dest: root}, os.Geteuid()))
	f.want(sameFiles(dir, g.files))
	if err := d.ask(Request{URL: toolURL + "s"}, 0); err == nil || !contains(err, toolURL+"s", "publish --url") {
		t.Errorf("unknown URL: %v", err)
	}
	f.stop()
	f.want(d.ask(Request{URL: toolURL}, 0))
	if err := d.ask(Request{URL: toolURL + "s"}, 0); err == nil || !contains(err, toolURL+"s", "not known here") {
		t.Errorf("unknown URL without services: %v", err)
	}
}

// TestUsers: who asked for a content is remembered, over a restart, whichever way its bytes came.
func TestUsers(t *testing.T) {
	f := newFleet(t)
	p := f.newDP()
	g := oneFile(t, "tool", 1<<20)
	f.publish(g, p)
	twin := makeGoods(t, "twin", map[string][]byte{"other.bin": g.bytes})
	f.publish(twin, p)
	d := f.device("127.0.2.2")
	for _, a := range []struct {
		g   *goods
		uid int
	}{{g, 1001}, {twin, 1002}, {g, 1003}, {twin, 1004}, {g, 1001}} {
		f.want(d.ask(Request{Ref: a.g.ref}, a.uid))
	}
	check := func(when string) {
		t.Helper()
		for _, want := range []struct {
			g     *goods
			users []int
		}{{g, []int{1001, 1003}}, {twin, []int{1002, 1004}}} {
			if got := d.status(want.g).Users; !slices.Equal(got, want.users) {
				t.Errorf("%s: users of %s are %d, want %d", when, want.g.ref, got, want.users)
			}
		}
	}
	check("at first")
	d.stop()
	d.start()
	check("after a restart")
	f.want(d.ask(Request{Ref: g.ref}, 1003))
	check("asked again")
}

// TestProbed: in mode 3 the agent has its port tried, and says so when it is not reached.
func TestProbed(t *testing.T) {
	f := newFleet(t)
	p := f.newDP()
	g := oneFile(t, "tool", 1<<20)
	f.publish(g, p)
	d := f.enrol("127.0.2.3", f.token("join"))
	d.set = map[string]string{"DODownloadMode": "3"}
	d.start()
	other := f.enrol("127.1.2.3", f.token("join"))
	other.set = d.set
	other.start()
	waitFor(t, "both probes", func() bool { return strings.Count(f.log.String(), "path=/v1/probe") == 2 })
	d.get(g) // with a join after its probe
	hears := api.JoinRequest{HashOfHashes: g.parsed.HashOfHashes.Base64(), Port: 7680, Scope: 3, Left: 1}
	waitFor(t, "another site to hear of the device", func() bool {
		r, err := other.client.Join(t.Context(), "https://"+f.addr+"/", hears)
		f.want(err)
		return len(r.Peers) == 1 && r.Peers[0].Address == fmt.Sprintf("127.0.2.3:%d", d.agent.dev.Port)
	})
	if why := d.status(g).Unreachable; why != "" {
		t.Errorf("the device says that it is not reached: %s", why)
	}
}

// TestUnreachable: what the server could not reach is told with the content's status.
func TestUnreachable(t *testing.T) {
	f := newFleet(t)
	p := f.newDP()
	g := oneFile(t, "tool", 1<<20)
	f.publish(g, p)
	d := f.device("127.0.2.4")
	d.get(g)
	d.agent.dev.Port = 1 // nobody listens there
	if wait, err := d.agent.probe(t.Context()); err != nil || wait < probeRest || wait > time.Hour {
		t.Errorf("the next probe after %v, %v", wait, err)
	}
	if why := d.status(g).Unreachable; !strings.Contains(why, "nobody answers at 127.0.2.4:1") {
		t.Errorf("the device says %q", why)
	}
}
