// Package catalog is the fleet's durable record: which contents there are and which bytes
// they mean now, who may read them, where sites, groups, devices and tokens stand.
//
// The types here are what is kept; the interfaces group what is done with it by concept, so
// that a service asks for the few it needs. Engines (package sqlite, later postgres) implement
// all of them and pass package catalogtest's suite. Times are kept in whole seconds, and every
// method that needs the time is given it.
//
// # Generations
//
// A (ContentID, Version) has one current manifest digest and a generation. Publishing another
// digest sets the generation to max(last + 1, Unix seconds), so that it grows even when the
// clock goes back or the catalog is rebuilt from nothing. A signed publication brings its own,
// which must be higher: devices without services compare that one. Publishing the current digest again
// is no re-issue: origins are added, groups replaced, and the generation stays, so that a
// publisher may repeat a request whose reply was lost. A distribution point that registers
// itself again has only the URLs that it names then: its older ones may be another's by now
// (it started again on another port). A recalled content keeps its generation
// and is otherwise unknown; publishing it anew goes on from there. A distribution point that
// registers itself cannot do that: what it still holds would come back with its next start.
//
// # URLs
//
// A version may be known by URLs, in the form of [api.NormalURL]: what a device asks for by
// one (DO's altCatalogId) is the newest version that has it and that its group may read. All
// versions that have a URL are of one ContentID. A re-issue keeps its URLs, a recall frees them.
package catalog

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/wire"
)

// Errors that callers branch on. Engines wrap them with what was asked for.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrChanged  = errors.New("changed meanwhile")    // compare-and-set: the current digest is another
	ErrNotOwner = errors.New("belongs to another")   // Publication.OwnedBy is not a current origin
	ErrRecalled = errors.New("was recalled")         // and Publication.OwnedBy cannot undo that
	ErrUsed     = errors.New("used up or expired")   // a token or ticket
	ErrInUse    = errors.New("still in use")         // a group with devices or contents
	ErrBadName  = errors.New("not well named")       // a content id or URL
	ErrOlder    = errors.New("not a new generation") // Publication.Generation is not higher than the current one
)

// Content is one (ContentID, Version) and the bytes that it means now.
type Content struct {
	Ref            content.Ref // Version is never 0
	Generation     int64
	ManifestDigest content.Digest
	HashOfHashes   content.Digest
	Size           int64 // bytes of all files
	Files          int
	MetadataSize   int64    // bytes of manifest and raw hash file together
	Groups         []string // sorted; empty: all groups
	Origins        []Origin // oldest first
	URLs           []string // that it is known by, normal and sorted
	Published      time.Time
	Signature      []byte        // the publisher's minisign file; nil: none
	Owner          wire.DeviceID // the distribution point that registered it for itself; zero: a publisher did
	Differs        int           // devices that expect other files; only Contents.Contents counts them
}

// Allows reports whether devices of the group may read the content.
func (c *Content) Allows(group string) bool {
	for _, g := range c.Groups {
		if g == group {
			return true
		}
	}
	return len(c.Groups) == 0
}

// Origin is a distribution point that holds a content's bytes.
type Origin struct {
	URL    string        // base, without a slash at the end
	Device wire.DeviceID // who registered it; zero: an administrator
}

// Publication asks for a content's registration.
type Publication struct {
	Content    Content        // Generation, Published, URLs, Owner and Differs are not looked at
	Replaces   content.Digest // when set: must be the current digest
	OwnedBy    wire.DeviceID  // when set: see Contents.Publish; groups then stay
	Ticket     Ticket         // when set: used up by this digest
	Generation int64          // when set: signed by the publisher, and the content's from then on
}

// Ticket names the permission for one publish. It may be shown again with the digest that it
// was used for, so that a publish whose reply was lost can be repeated.
type Ticket struct {
	Nonce   [16]byte
	Expires time.Time // it may be forgotten then
}

// Contents keeps what is published.
type Contents interface {
	// Publish registers and returns the content as it then is. A distribution point that does so
	// for itself (OwnedBy) must be one of a content's origins, and another digest it may give
	// only what it was the first to register: published content changes by its publisher alone.
	// What was recalled it may not register at all. ErrChanged, ErrNotOwner, ErrRecalled, ErrUsed, ErrOlder.
	Publish(ctx context.Context, p Publication, now time.Time) (Content, error)
	// Content returns ref's current state; version 0 stands for the newest. ErrNotFound.
	Content(ctx context.Context, ref content.Ref) (Content, error)
	// Readable is Content among what the group may read. ErrNotFound.
	Readable(ctx context.Context, ref content.Ref, group string) (Content, error)
	// Contents returns all, by id and version.
	Contents(ctx context.Context) ([]Content, error)
	// Recall withdraws one version. ErrNotFound.
	Recall(ctx context.Context, ref content.Ref, now time.Time) error
}

// Origins tells where distribution points are.
type Origins interface {
	// Origins returns those that registered a current content and were not revoked, the ones
	// with the most contents first, then by URL; at most so many.
	Origins(ctx context.Context, most int) ([]Origin, error)
}

// URLs keeps by which URLs contents are known. They are normal.
type URLs interface {
	// SetURLs makes these the URLs of one version, and no others. ErrNotFound; ErrExists when
	// another content has one of them.
	SetURLs(ctx context.Context, ref content.Ref, urls []string) (Content, error)
	// ReadableByURL returns the newest version that has the URL, or that one when it is not 0,
	// among what the group may read. ErrNotFound.
	ReadableByURL(ctx context.Context, url string, version uint64, group string) (Content, error)
	// URLHolder returns the content that has the URL. ErrNotFound.
	URLHolder(ctx context.Context, url string) (content.ID, error)
}

// Sizes tells how many bytes a HashOfHashes stands for. ErrNotFound.
type Sizes interface {
	SizeOf(ctx context.Context, hashOfHashes content.Digest) (int64, error)
}

// Site is a place behind one WAN link.
type Site struct {
	Name  string
	CIDRs []netip.Prefix // masked
}

// Sites keeps the table that Geo decides by.
type Sites interface {
	// AddSite adds the site, or prefixes to it. ErrExists when another site has one of them.
	AddSite(ctx context.Context, s Site) error
	// Sites returns all, by name.
	Sites(ctx context.Context) ([]Site, error)
	// RemoveSite forgets the site. ErrNotFound.
	RemoveSite(ctx context.Context, name string) error
}

// Group is a set of devices that may exchange content.
type Group struct {
	Name    string
	Devices int // enrolled and not revoked
}

// Groups keeps the fleet's groups.
type Groups interface {
	// AddGroup adds one. ErrExists.
	AddGroup(ctx context.Context, name string, now time.Time) error
	// Group returns one. ErrNotFound.
	Group(ctx context.Context, name string) (Group, error)
	// Groups returns all, by name.
	Groups(ctx context.Context) ([]Group, error)
	// RemoveGroup forgets one and its LAN keys. ErrNotFound, ErrInUse.
	RemoveGroup(ctx context.Context, name string) error
}

// Device is an enrolled device or origin.
type Device struct {
	ID       wire.DeviceID
	Name     string         // host name, for people
	Role     string         // device or origin
	Group    string         // empty for an origin
	Key      content.Digest // SHA-256 of the public key (PKIX, DER): a renewal must show the same
	Enrolled time.Time
	Renewed  time.Time
	Revoked  time.Time // zero: not revoked
}

// LANKey seals the LAN datagrams of a group's devices from a time on.
type LANKey struct {
	ID      [8]byte
	Secret  api.Secret // 32 bytes
	Starts  time.Time
	Revoked int64 // devices of the group that had been revoked when it was made
}

// LANKeys keeps the groups' LAN keys. When to make which is for their user; see package
// keyvalue.
type LANKeys interface {
	// LANKeys returns the keys of a group by start, and how many of its devices are revoked by
	// now. A group that is not known has none.
	LANKeys(ctx context.Context, group string) (keys []LANKey, revoked int64, err error)
	// SwapLANKeys replaces a group's keys, if they are still the old ones. ErrChanged; ErrNotFound
	// when there is no such group.
	SwapLANKeys(ctx context.Context, group string, old, keys []LANKey) error
}

// Devices keeps who is enrolled.
type Devices interface {
	// AddDevice enrols. ErrExists.
	AddDevice(ctx context.Context, d Device) error
	// Device returns one. ErrNotFound.
	Device(ctx context.Context, id wire.DeviceID) (Device, error)
	// Devices returns all, by time of enrolment, then id.
	Devices(ctx context.Context) ([]Device, error)
	// RenewDevice notes a renewal. ErrNotFound for an unknown or revoked device.
	RenewDevice(ctx context.Context, id wire.DeviceID, now time.Time) error
	// RevokeDevice puts the device on the deny list; again is no error. ErrNotFound.
	RevokeDevice(ctx context.Context, id wire.DeviceID, now time.Time) error
}

// DenyList returns the ids of revoked devices, sorted, and a version that grows with each one
// and is no less than the Unix time in seconds of the last. So it is higher, too, than what a catalog had
// before it was restored from an old copy, once a device is revoked anew.
type DenyList interface {
	Revoked(ctx context.Context) (ids []wire.DeviceID, version int64, err error)
}

// Token is a secret that buys something. Only its digest is kept.
type Token struct {
	ID      string         // short, for people
	Kind    string         // admin, publish, origin or join
	Group   string         // of a join token's devices; else empty
	Secret  content.Digest // SHA-256 of the secret
	Created time.Time
	Expires time.Time
	Left    int // uses; Unlimited
}

// Unlimited is the number of uses of a token that is not counted.
const Unlimited = -1

// Usable reports whether the token may be used at that time.
func (t *Token) Usable(now time.Time) bool { return t.Left != 0 && now.Before(t.Expires) }

// Tokens keeps the tokens.
type Tokens interface {
	// AddToken keeps one. ErrExists.
	AddToken(ctx context.Context, t Token) error
	// Token returns the token with this secret's digest. ErrNotFound.
	Token(ctx context.Context, secret content.Digest) (Token, error)
	// UseToken takes one use of a counted token. ErrNotFound, ErrUsed.
	UseToken(ctx context.Context, secret content.Digest, now time.Time) (Token, error)
	// Tokens returns all, by time of creation, then id.
	Tokens(ctx context.Context) ([]Token, error)
	// RemoveToken ends one. ErrNotFound.
	RemoveToken(ctx context.Context, id string) error
}

// Setting is a setting's value for the whole fleet.
type Setting struct {
	Name, Value string
}

// Settings keeps the fleet's settings.
type Settings interface {
	// PutSetting sets or replaces one.
	PutSetting(ctx context.Context, s Setting, now time.Time) error
	// Settings returns all, by name.
	Settings(ctx context.Context) ([]Setting, error)
	// RemoveSetting forgets one. ErrNotFound.
	RemoveSetting(ctx context.Context, name string) error
}

// SiteSetting is a setting's value for the devices of one site.
type SiteSetting struct {
	Site string // as Geo names it
	Setting
}

// SiteSettings keeps the settings of sites.
type SiteSettings interface {
	// PutSiteSetting sets or replaces one.
	PutSiteSetting(ctx context.Context, s SiteSetting, now time.Time) error
	// SiteSettings returns all, by site and name.
	SiteSettings(ctx context.Context) ([]SiteSetting, error)
	// RemoveSiteSetting forgets one. ErrNotFound.
	RemoveSiteSetting(ctx context.Context, site, name string) error
}

// Report is what a device tells of one finished download.
type Report struct {
	Device wire.DeviceID
	Job    string
	Body   []byte // JSON
	At     time.Time
}

// Reports keeps what devices report.
type Reports interface {
	// AddReport keeps a job's report; one that is there already stays, without error.
	AddReport(ctx context.Context, r Report) error
	// Reports returns a device's reports, the oldest first.
	Reports(ctx context.Context, device wire.DeviceID) ([]Report, error)
}
