// Package catalogtest is the suite that every engine of the catalog passes.
package catalogtest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/wire"
)

// Engine is everything that a catalog does.
type Engine interface {
	catalog.Contents
	catalog.Origins
	catalog.URLs
	catalog.Sizes
	catalog.Sites
	catalog.Groups
	catalog.LANKeys
	catalog.Devices
	catalog.DenyList
	catalog.Tokens
	catalog.Settings
	catalog.SiteSettings
	catalog.Reports
	catalog.Differences
}

// now is an arbitrary time in whole seconds.
var now = time.Unix(1_800_000_000, 0)

// Test runs the suite; open returns an empty engine that lives as long as the test.
func Test(t *testing.T, open func(t *testing.T) Engine) {
	for name, f := range map[string]func(*testing.T, Engine){
		"Publish":         testPublish,
		"OriginMoves":     testOriginMoves,
		"Origins":         testOrigins,
		"NewestVersion":   testNewestVersion,
		"Readable":        testReadable,
		"CompareAndSet":   testCompareAndSet,
		"OwnedBy":         testOwnedBy,
		"Signed":          testSigned,
		"Differences":     testDifferences,
		"Ticket":          testTicket,
		"Recall":          testRecall,
		"URLs":            testURLs,
		"URLsAreUnique":   testURLsAreUnique,
		"URLsOfGroups":    testURLsOfGroups,
		"Find":            testFind,
		"ConcurrentCAS":   testConcurrentCompareAndSet,
		"Sites":           testSites,
		"Groups":          testGroups,
		"LANKeys":         testLANKeys,
		"Devices":         testDevices,
		"Tokens":          testTokens,
		"TokenUsedByMany": testTokenUsedByMany,
		"Settings":        testSettings,
		"SiteSettings":    testSiteSettings,
		"Reports":         testReports,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

func digest(s string) content.Digest { return content.DigestOf([]byte(s)) }

func device(b byte) wire.DeviceID { return wire.DeviceID{0: b, 15: 1} }

// sample returns a publication of id@version that means the bytes named body.
func sample(id string, version uint64, body string) catalog.Publication {
	return catalog.Publication{Content: catalog.Content{
		Ref:            content.Ref{ID: content.ID(id), Version: version},
		ManifestDigest: digest("manifest of " + body), HashOfHashes: digest(body),
		Size: int64(len(body)), Files: 1, MetadataSize: 300,
		Origins: []catalog.Origin{{URL: "https://dp1", Device: device(1)}},
	}}
}

func publish(t *testing.T, e Engine, p catalog.Publication, at time.Time) catalog.Content {
	t.Helper()
	c, err := e.Publish(t.Context(), p, at)
	if err != nil {
		t.Fatalf("publish %q: %v", p.Content.Ref, err)
	}
	return c
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func wantNil(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: got %+v, want %+v", what, got, want)
	}
}

func testPublish(t *testing.T, e Engine) {
	p := sample("tool", 1, "one")
	p.Content.Groups = []string{"b", "a", "b"}
	first := publish(t, e, p, now)
	same(t, "generation", first.Generation, now.Unix())
	same(t, "groups", first.Groups, []string{"a", "b"})
	got, err := e.Content(t.Context(), p.Content.Ref)
	wantNil(t, err)
	same(t, "content", got, first)

	again := sample("tool", 1, "one")
	again.Content.Origins = []catalog.Origin{{URL: "https://dp2", Device: device(2)}}
	second := publish(t, e, again, now.Add(time.Hour))
	same(t, "generation of the same digest", second.Generation, first.Generation)
	same(t, "origins of the same digest", len(second.Origins), 2)
	same(t, "groups are replaced", len(second.Groups), 0)

	third := publish(t, e, sample("tool", 1, "two"), now.Add(-time.Hour))
	same(t, "generation when the clock went back", third.Generation, first.Generation+1)
	same(t, "origins of another digest", third.Origins, sample("tool", 1, "two").Content.Origins)
	fourth := publish(t, e, sample("tool", 1, "one"), now.Add(time.Hour))
	same(t, "generation later", fourth.Generation, now.Add(time.Hour).Unix())
	all, err := e.Contents(t.Context())
	wantNil(t, err)
	same(t, "all", all, []catalog.Content{fourth})
	size, err := e.SizeOf(t.Context(), digest("one"))
	wantNil(t, err)
	same(t, "size", size, int64(3))
	_, err = e.SizeOf(t.Context(), digest("two"))
	wantErr(t, err, catalog.ErrNotFound)
}

// testOrigins: distribution points are told, the busiest first; no administrator's address, none
// that holds nothing current, and none that was revoked.
func testOrigins(t *testing.T, e Engine) {
	all := func(most int) []catalog.Origin {
		got, err := e.Origins(t.Context(), most)
		wantNil(t, err)
		return got
	}
	same(t, "none", len(all(9)), 0)
	holds := func(id string, version uint64, origins ...catalog.Origin) content.Ref {
		p := sample(id, version, id+fmt.Sprint(version))
		p.Content.Origins = origins
		return publish(t, e, p, now).Ref
	}
	one, two := catalog.Origin{URL: "https://dp1", Device: device(1)}, catalog.Origin{URL: "https://dp2", Device: device(2)}
	gone, bad := catalog.Origin{URL: "https://dp3", Device: device(3)}, catalog.Origin{URL: "https://dp4", Device: device(4)}
	holds("a", 1, one, two, catalog.Origin{URL: "https://cdn"})
	holds("a", 2, two, bad)
	recalled := holds("b", 1, gone)
	wantNil(t, e.Recall(t.Context(), recalled, now))
	wantNil(t, e.AddDevice(t.Context(), catalog.Device{ID: bad.Device, Role: "origin", Enrolled: now}))
	same(t, "before it is revoked", all(9), []catalog.Origin{two, one, bad})
	wantNil(t, e.RevokeDevice(t.Context(), bad.Device, now))
	same(t, "all", all(9), []catalog.Origin{two, one})
	same(t, "the first", all(1), []catalog.Origin{two})
}

// testOriginMoves: a device's URLs are the ones that it named last, everybody else's stay.
func testOriginMoves(t *testing.T, e Engine) {
	nobody := wire.DeviceID{}
	var got catalog.Content
	for _, step := range []struct {
		why       string
		add, want []catalog.Origin
	}{
		{"first", []catalog.Origin{{URL: "https://dp1:1", Device: device(1)}}, []catalog.Origin{{URL: "https://dp1:1", Device: device(1)}}},
		{"an administrator's", []catalog.Origin{{URL: "https://cdn", Device: nobody}},
			[]catalog.Origin{{URL: "https://dp1:1", Device: device(1)}, {URL: "https://cdn", Device: nobody}}},
		{"another administrator's", []catalog.Origin{{URL: "https://cdn2", Device: nobody}},
			[]catalog.Origin{{URL: "https://dp1:1", Device: device(1)}, {URL: "https://cdn", Device: nobody}, {URL: "https://cdn2", Device: nobody}}},
		{"another port", []catalog.Origin{{URL: "https://dp1:2", Device: device(1)}},
			[]catalog.Origin{{URL: "https://cdn", Device: nobody}, {URL: "https://cdn2", Device: nobody}, {URL: "https://dp1:2", Device: device(1)}}},
		{"a second URL", []catalog.Origin{{URL: "https://cdn2", Device: device(2)}, {URL: "https://dp2", Device: device(2)}},
			[]catalog.Origin{{URL: "https://cdn", Device: nobody}, {URL: "https://cdn2", Device: device(2)}, {URL: "https://dp1:2", Device: device(1)}, {URL: "https://dp2", Device: device(2)}}},
		{"the same again", []catalog.Origin{{URL: "https://dp2", Device: device(2)}, {URL: "https://cdn2", Device: device(2)}},
			[]catalog.Origin{{URL: "https://cdn", Device: nobody}, {URL: "https://cdn2", Device: device(2)}, {URL: "https://dp1:2", Device: device(1)}, {URL: "https://dp2", Device: device(2)}}},
		{"its port is another's now", []catalog.Origin{{URL: "https://dp1:2", Device: device(2)}},
			[]catalog.Origin{{URL: "https://cdn", Device: nobody}, {URL: "https://dp1:2", Device: device(2)}}},
	} {
		p := sample("tool", 1, "one")
		p.Content.Origins = step.add
		got = publish(t, e, p, now)
		same(t, step.why, got.Origins, step.want)
	}
	kept, err := e.Content(t.Context(), got.Ref)
	wantNil(t, err)
	same(t, "what is kept", kept, got)
}

func testNewestVersion(t *testing.T, e Engine) {
	for _, v := range []uint64{2, 10, 1} {
		publish(t, e, sample("tool", v, fmt.Sprint("v", v)), now)
	}
	got, err := e.Content(t.Context(), content.Ref{ID: "tool"})
	wantNil(t, err)
	same(t, "newest", got.Ref.Version, uint64(10))
	wantNil(t, e.Recall(t.Context(), got.Ref, now))
	got, err = e.Content(t.Context(), content.Ref{ID: "tool"})
	wantNil(t, err)
	same(t, "newest after a recall", got.Ref.Version, uint64(2))
	for _, unknown := range []content.Ref{{ID: "tool", Version: 3}, {ID: "other"}, {ID: "TOOL"}} {
		_, err = e.Content(t.Context(), unknown)
		wantErr(t, err, catalog.ErrNotFound)
	}
}

func testReadable(t *testing.T, e Engine) {
	for v, groups := range [][]string{1: {"a", "b"}, 2: nil, 3: {"b"}} {
		if v > 0 {
			p := sample("tool", uint64(v), fmt.Sprint("v", v))
			p.Content.Groups = groups
			publish(t, e, p, now)
		}
	}
	for _, c := range []struct {
		group         string
		version, want uint64
	}{{"a", 0, 2}, {"b", 0, 3}, {"c", 0, 2}, {"a", 1, 1}, {"c", 1, 0}, {"a", 3, 0}, {"b", 3, 3}} {
		got, err := e.Readable(t.Context(), content.Ref{ID: "tool", Version: c.version}, c.group)
		if c.want == 0 {
			wantErr(t, err, catalog.ErrNotFound)
			continue
		}
		wantNil(t, err)
		same(t, fmt.Sprintf("version %d for %s", c.version, c.group), got.Ref.Version, c.want)
	}
}

func testCompareAndSet(t *testing.T, e Engine) {
	p := sample("tool", 1, "two")
	p.Replaces = digest("manifest of one")
	_, err := e.Publish(t.Context(), p, now)
	wantErr(t, err, catalog.ErrChanged)
	publish(t, e, sample("tool", 1, "one"), now)
	same(t, "after compare-and-set", publish(t, e, p, now).ManifestDigest, digest("manifest of two"))
	_, err = e.Publish(t.Context(), p, now)
	wantErr(t, err, catalog.ErrChanged)
}

func testOwnedBy(t *testing.T, e Engine) {
	p := sample("tool", 1, "one")
	p.OwnedBy, p.Content.Groups = device(1), []string{"a"}
	publish(t, e, p, now)
	stranger := sample("tool", 1, "bad")
	stranger.OwnedBy, stranger.Content.Origins[0].Device = device(2), device(2)
	_, err := e.Publish(t.Context(), stranger, now)
	wantErr(t, err, catalog.ErrNotOwner)
	renewed := sample("tool", 1, "two")
	renewed.OwnedBy = device(1)
	renewed.Replaces = digest("manifest of one")
	second := publish(t, e, renewed, now)
	same(t, "groups stay", second.Groups, []string{"a"})
	same(t, "owner", second.Owner, device(1))

	published := sample("tool", 1, "three")
	same(t, "owner of what is published", publish(t, e, published, now).Owner, wire.DeviceID{})
	renewed.Replaces = digest("manifest of three")
	_, err = e.Publish(t.Context(), renewed, now)
	wantErr(t, err, catalog.ErrNotOwner)
	published.OwnedBy = device(1)
	same(t, "the same again stays the publisher's", publish(t, e, published, now).Owner, wire.DeviceID{})
}

func testTicket(t *testing.T, e Engine) {
	p := sample("tool", 1, "one")
	p.Ticket = catalog.Ticket{Nonce: [16]byte{1}, Expires: now.Add(time.Hour)}
	publish(t, e, p, now)
	publish(t, e, p, now)
	other := sample("tool", 1, "two")
	other.Ticket = p.Ticket
	_, err := e.Publish(t.Context(), other, now)
	wantErr(t, err, catalog.ErrUsed)
	got, err := e.Content(t.Context(), p.Content.Ref)
	wantNil(t, err)
	same(t, "current digest", got.ManifestDigest, p.Content.ManifestDigest)
	other.Ticket.Nonce[0]++
	publish(t, e, other, now)
}

func testRecall(t *testing.T, e Engine) {
	first := publish(t, e, sample("tool", 1, "one"), now)
	wantNil(t, e.Recall(t.Context(), first.Ref, now))
	_, err := e.Content(t.Context(), first.Ref)
	wantErr(t, err, catalog.ErrNotFound)
	wantErr(t, e.Recall(t.Context(), first.Ref, now), catalog.ErrNotFound)
	for _, bytes := range []string{"one", "two"} {
		own := sample("tool", 1, bytes)
		own.OwnedBy = device(1)
		_, err = e.Publish(t.Context(), own, now)
		wantErr(t, err, catalog.ErrRecalled)
		own.Replaces = first.ManifestDigest
		_, err = e.Publish(t.Context(), own, now)
		wantErr(t, err, catalog.ErrRecalled)
	}
	_, err = e.Content(t.Context(), first.Ref)
	wantErr(t, err, catalog.ErrNotFound)
	again := publish(t, e, sample("tool", 1, "one"), now)
	same(t, "generation after a recall", again.Generation, first.Generation+1)
}

// testConcurrentCompareAndSet lets several writers replace the same digest: one wins.
func testConcurrentCompareAndSet(t *testing.T, e Engine) {
	publish(t, e, sample("tool", 1, "one"), now)
	errs := concurrently(8, func(i int) error {
		p := sample("tool", 1, fmt.Sprint("writer ", i))
		p.Replaces = digest("manifest of one")
		_, err := e.Publish(context.Background(), p, now)
		return err
	})
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			wantErr(t, err, catalog.ErrChanged)
		}
	}
	same(t, "winners", won, 1)
}

func concurrently(n int, f func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errs
}

func testSites(t *testing.T, e Engine) {
	v4, v6 := netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8::/48")
	wantNil(t, e.AddSite(t.Context(), catalog.Site{Name: "oslo", CIDRs: []netip.Prefix{v4}}))
	wantNil(t, e.AddSite(t.Context(), catalog.Site{Name: "bergen"}))
	taken := catalog.Site{Name: "bergen", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), v4}}
	wantErr(t, e.AddSite(t.Context(), taken), catalog.ErrExists)
	wantNil(t, e.AddSite(t.Context(), catalog.Site{Name: "oslo", CIDRs: []netip.Prefix{v6, v4}}))
	oslo := catalog.Site{Name: "oslo", CIDRs: []netip.Prefix{v4, v6}}
	all, err := e.Sites(t.Context())
	wantNil(t, err)
	same(t, "sites", all, []catalog.Site{{Name: "bergen"}, oslo})
	wantNil(t, e.RemoveSite(t.Context(), "oslo"))
	wantErr(t, e.RemoveSite(t.Context(), "oslo"), catalog.ErrNotFound)
	wantNil(t, e.AddSite(t.Context(), taken))
	all, err = e.Sites(t.Context())
	wantNil(t, err)
	same(t, "sites", all, []catalog.Site{{Name: "bergen", CIDRs: []netip.Prefix{v4, taken.CIDRs[0]}}})
}

func testGroups(t *testing.T, e Engine) {
	wantNil(t, e.AddGroup(t.Context(), "lab", now))
	wantErr(t, e.AddGroup(t.Context(), "lab", now), catalog.ErrExists)
	wantNil(t, e.AddGroup(t.Context(), "alpha", now))
	wantNil(t, e.AddDevice(t.Context(), catalog.Device{ID: device(1), Role: "device", Group: "lab", Enrolled: now}))
	wantNil(t, e.AddDevice(t.Context(), catalog.Device{ID: device(2), Role: "device", Group: "lab", Enrolled: now}))
	wantNil(t, e.RevokeDevice(t.Context(), device(2), now))
	all, err := e.Groups(t.Context())
	wantNil(t, err)
	same(t, "groups", all, []catalog.Group{{Name: "alpha"}, {Name: "lab", Devices: 1}})
	_, err = e.Group(t.Context(), "beta")
	wantErr(t, err, catalog.ErrNotFound)
	wantErr(t, e.RemoveGroup(t.Context(), "lab"), catalog.ErrInUse)
	wantNil(t, e.RevokeDevice(t.Context(), device(1), now))
	p := sample("tool", 1, "one")
	p.Content.Groups = []string{"lab"}
	publish(t, e, p, now)
	wantErr(t, e.RemoveGroup(t.Context(), "lab"), catalog.ErrInUse)
	wantNil(t, e.Recall(t.Context(), p.Content.Ref, now))
	wantNil(t, e.RemoveGroup(t.Context(), "lab"))
	wantErr(t, e.RemoveGroup(t.Context(), "lab"), catalog.ErrNotFound)
}

func testDevices(t *testing.T, e Engine) {
	d := catalog.Device{ID: device(7), Name: "pc-7", Role: "device", Group: "lab", Key: digest("key"), Enrolled: now, Renewed: now}
	wantNil(t, e.AddDevice(t.Context(), d))
	wantErr(t, e.AddDevice(t.Context(), d), catalog.ErrExists)
	got, err := e.Device(t.Context(), d.ID)
	wantNil(t, err)
	same(t, "device", got, d)
	_, err = e.Device(t.Context(), device(8))
	wantErr(t, err, catalog.ErrNotFound)
	wantNil(t, e.RenewDevice(t.Context(), d.ID, now.Add(time.Hour)))
	wantNil(t, e.RevokeDevice(t.Context(), d.ID, now.Add(2*time.Hour)))
	wantNil(t, e.RevokeDevice(t.Context(), d.ID, now.Add(3*time.Hour)))
	wantErr(t, e.RevokeDevice(t.Context(), device(8), now), catalog.ErrNotFound)
	wantErr(t, e.RenewDevice(t.Context(), d.ID, now), catalog.ErrNotFound)
	d.Renewed, d.Revoked = now.Add(time.Hour), now.Add(2*time.Hour)
	all, err := e.Devices(t.Context())
	wantNil(t, err)
	same(t, "devices", all, []catalog.Device{d})
	ids, version, err := e.Revoked(t.Context())
	wantNil(t, err)
	same(t, "deny list", ids, []wire.DeviceID{d.ID})
	same(t, "deny list version", version, now.Add(2*time.Hour).Unix())
	for i, at := range []time.Time{now.Add(2 * time.Hour), now} { // of one second, and of a clock that was set back
		more := catalog.Device{ID: device(byte(8 + i)), Name: "more", Role: "device", Group: "lab", Key: digest("k"), Enrolled: now, Renewed: now}
		wantNil(t, e.AddDevice(t.Context(), more))
		wantNil(t, e.RevokeDevice(t.Context(), more.ID, at))
		_, next, err := e.Revoked(t.Context())
		wantNil(t, err)
		same(t, "deny list version after one more", next, version+1)
		version = next
	}
}

func testTokens(t *testing.T, e Engine) {
	tok := catalog.Token{ID: "t1", Kind: "join", Group: "lab", Secret: digest("s"), Created: now, Expires: now.Add(time.Hour), Left: 1}
	wantNil(t, e.AddToken(t.Context(), tok))
	wantErr(t, e.AddToken(t.Context(), tok), catalog.ErrExists)
	got, err := e.Token(t.Context(), tok.Secret)
	wantNil(t, err)
	same(t, "token", got, tok)
	_, err = e.UseToken(t.Context(), digest("other"), now)
	wantErr(t, err, catalog.ErrNotFound)
	_, err = e.UseToken(t.Context(), tok.Secret, tok.Expires)
	wantErr(t, err, catalog.ErrUsed)
	used, err := e.UseToken(t.Context(), tok.Secret, now)
	wantNil(t, err)
	same(t, "uses left", used.Left, 0)
	_, err = e.UseToken(t.Context(), tok.Secret, now)
	wantErr(t, err, catalog.ErrUsed)

	free := catalog.Token{ID: "t2", Kind: "admin", Secret: digest("f"), Created: now, Expires: now.Add(time.Hour), Left: catalog.Unlimited}
	wantNil(t, e.AddToken(t.Context(), free))
	for range 3 {
		used, err = e.UseToken(t.Context(), free.Secret, now)
		wantNil(t, err)
		same(t, "uses left", used.Left, catalog.Unlimited)
	}
	wantNil(t, e.RemoveToken(t.Context(), "t1"))
	wantErr(t, e.RemoveToken(t.Context(), "t1"), catalog.ErrNotFound)
	all, err := e.Tokens(t.Context())
	wantNil(t, err)
	same(t, "tokens", all, []catalog.Token{free})
}

// testTokenUsedByMany lets eight use a token of three uses at once.
func testTokenUsedByMany(t *testing.T, e Engine) {
	tok := catalog.Token{ID: "t", Kind: "join", Secret: digest("s"), Created: now, Expires: now.Add(time.Hour), Left: 3}
	wantNil(t, e.AddToken(t.Context(), tok))
	errs := concurrently(8, func(int) error {
		_, err := e.UseToken(context.Background(), tok.Secret, now)
		return err
	})
	used := 0
	for _, err := range errs {
		if err == nil {
			used++
		} else {
			wantErr(t, err, catalog.ErrUsed)
		}
	}
	same(t, "uses", used, 3)
}

func testSettings(t *testing.T, e Engine) {
	wantNil(t, e.PutSetting(t.Context(), catalog.Setting{Name: "DODownloadMode", Value: "1"}, now))
	wantNil(t, e.PutSetting(t.Context(), catalog.Setting{Name: "DODownloadMode", Value: "2"}, now))
	wantNil(t, e.PutSetting(t.Context(), catalog.Setting{Name: "A", Value: ""}, now))
	all, err := e.Settings(t.Context())
	wantNil(t, err)
	same(t, "settings", all, []catalog.Setting{{Name: "A"}, {Name: "DODownloadMode", Value: "2"}})
	wantNil(t, e.RemoveSetting(t.Context(), "A"))
	wantErr(t, e.RemoveSetting(t.Context(), "A"), catalog.ErrNotFound)
}

func testSiteSettings(t *testing.T, e Engine) {
	put := func(site, name, value string) catalog.SiteSetting {
		s := catalog.SiteSetting{Site: site, Setting: catalog.Setting{Name: name, Value: value}}
		wantNil(t, e.PutSiteSetting(t.Context(), s, now))
		return s
	}
	wantNil(t, e.PutSetting(t.Context(), catalog.Setting{Name: "A", Value: "fleet"}, now))
	put("oslo", "A", "1")
	b, a, bergen := put("oslo", "B", "1"), put("oslo", "A", "2"), put("bergen", "A", "3")
	all, err := e.SiteSettings(t.Context())
	wantNil(t, err)
	same(t, "settings of sites", all, []catalog.SiteSetting{bergen, a, b})
	wantNil(t, e.RemoveSiteSetting(t.Context(), "oslo", "A"))
	wantErr(t, e.RemoveSiteSetting(t.Context(), "oslo", "A"), catalog.ErrNotFound)
	all, err = e.SiteSettings(t.Context())
	wantNil(t, err)
	same(t, "settings of sites", all, []catalog.SiteSetting{bergen, b})
	fleet, err := e.Settings(t.Context())
	wantNil(t, err)
	same(t, "settings of the fleet", fleet, []catalog.Setting{{Name: "A", Value: "fleet"}})
}

func testReports(t *testing.T, e Engine) {
	r := catalog.Report{Device: device(1), Job: "j1", Body: []byte(`{"a":1}`), At: now}
	wantNil(t, e.AddReport(t.Context(), r))
	other := r
	other.Body, other.At = []byte(`{"a":2}`), now.Add(time.Hour)
	wantNil(t, e.AddReport(t.Context(), other))
	second := catalog.Report{Device: device(1), Job: "j0", Body: []byte(`{}`), At: now.Add(time.Minute)}
	wantNil(t, e.AddReport(t.Context(), second))
	all, err := e.Reports(t.Context(), device(1))
	wantNil(t, err)
	same(t, "reports", all, []catalog.Report{r, second})
	all, err = e.Reports(t.Context(), device(2))
	wantNil(t, err)
	same(t, "reports of another device", len(all), 0)
}
