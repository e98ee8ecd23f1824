package records

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
)

const toolURL = "https://dl.example/tool.zip"

func TestAskersAreBounded(t *testing.T) {
	var a Askers
	for uid := range maxUsers + 10 {
		a = a.Add(Askers{Users: []int{uid}})
		a = a.Add(Askers{Users: []int{uid}, URLs: []string{toolURL, toolURL + strings.Repeat("x", uid)}})
	}
	if len(a.Users) != maxUsers || a.Users[0] != 10 || len(a.URLs) != maxURLs {
		t.Errorf("%d users from %d on, %d URLs", len(a.Users), a.Users[0], len(a.URLs))
	}
	before := slices.Clone(a.Users)
	if a.Add(Askers{Users: []int{7777}}); !slices.Equal(a.Users, before) {
		t.Error("adding changed what it was added to")
	}
}

// TestOfLsz: a distribution point's reply makes a record without a grant; peers have only what
// is the fleet's, or what its publisher signed.
func TestOfLsz(t *testing.T) {
	digest := content.DigestOf(nil)
	reply := api.LszReply{
		ContentId: "app", Version: 2, Outcome: api.LszFits, ManifestDigest: digest.String(), HashOfHashes: digest.Base64(), Size: 5, Generation: 7,
		ManifestUrl: "https://dp/m", PiecesHashFileUrl: "https://dp/h", ContentUrl: "https://dp/b", Manifest: []byte("m"), HashFile: []byte("h"),
	}
	r, err := OfLsz(&reply)
	want := Record{
		Ref: content.Ref{ID: "app", Version: 2}, Generation: 7, Manifest: digest, HashOfHashes: digest, Size: 5, Peerable: true,
		ManifestURLs: []string{"https://dp/m"}, HashFileURLs: []string{"https://dp/h"}, ContentURLs: []string{"https://dp/b"},
		Inline: []byte("m"), InlineHashes: []byte("h"),
	}
	if err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, %v\nwant %+v", r, err, want)
	}
	for why, c := range map[string]struct {
		outcome   string
		signature []byte
		size      int64
		peerable  bool
	}{
		"its own":            {api.LszDiffers, nil, 5, false},
		"its own, signed":    {api.LszDiffers, []byte("signature"), 5, true},
		"the fleet's, empty": {api.LszFits, nil, 0, false},
	} {
		reply.Outcome, reply.PublisherSignature, reply.Size = c.outcome, c.signature, c.size
		if r, err := OfLsz(&reply); err != nil || r.Peerable != c.peerable || string(r.Signature) != string(c.signature) {
			t.Errorf("%s: peerable %v, signature %q, %v; want %v", why, r.Peerable, r.Signature, err, c.peerable)
		}
	}
	reply.HashOfHashes = "?"
	if _, err := OfLsz(&reply); err == nil {
		t.Error("a HashOfHashes that is none was taken")
	}
}

// TestRenewed: what is said later of a manifest takes the place of what was said before, but for a
// grant that it lacks and a generation that is lower; the publisher's signature, and what became of
// the content here, stay.
func TestRenewed(t *testing.T) {
	at := func(day int) time.Time { return time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC) }
	policy := Record{
		Generation: 5, Peerable: true, Grant: []byte("a"), Granted: at(1), Signature: []byte("s"), ContentURLs: []string{"https://one"},
		Wanted: true, Askers: Askers{Users: []int{1}},
	}
	for name, c := range map[string]struct {
		by, want Record
	}{
		"a newer reply": {
			Record{Generation: 6, Grant: []byte("b"), Granted: at(2), ContentURLs: []string{"https://two"}},
			Record{Generation: 6, Grant: []byte("b"), Granted: at(2), ContentURLs: []string{"https://two"}, Signature: []byte("s")},
		},
		"a signature": {
			Record{Generation: 6, Grant: []byte("b"), Granted: at(2), Signature: []byte("t")},
			Record{Generation: 6, Grant: []byte("b"), Granted: at(2), Signature: []byte("t")},
		},
		"a distribution point's": {
			Record{Generation: 9, ContentURLs: []string{"https://dp"}},
			Record{Generation: 5, Peerable: true, Grant: []byte("a"), Granted: at(1), ContentURLs: []string{"https://one"}, Signature: []byte("s")},
		},
		"an older generation with a newer grant": {
			Record{Generation: 4, Grant: []byte("b"), Granted: at(2), Signature: []byte("t")},
			Record{Generation: 5, Peerable: true, Grant: []byte("b"), Granted: at(2), ContentURLs: []string{"https://one"}, Signature: []byte("s")},
		},
	} {
		c.by.Askers.Users = []int{2}
		c.want.Wanted, c.want.Askers.Users = true, []int{1, 2}
		if got := policy.Renewed(c.by); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v\nwant %+v", name, got, c.want)
		}
	}
	dp := Record{Generation: 9, Signature: []byte("s"), ContentURLs: []string{"https://dp"}}
	want := policy
	want.Wanted = false
	if got := dp.Renewed(policy); !reflect.DeepEqual(got, want) {
		t.Errorf("Content Policy after a distribution point: %+v\nwant %+v", got, want)
	}
	if got := (Record{}).Renewed(policy); !reflect.DeepEqual(got, want) {
		t.Errorf("the first word: %+v\nwant %+v", got, want)
	}
}
