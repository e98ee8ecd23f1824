// Package api holds the requests and replies of freshet's services. Fields bear Delivery
// Optimization's names where it has one. Numbers are accepted as JSON numbers or as
// strings, as DO clients send them; unknown fields are ignored. Errors are
// application/problem+json ([Problem]).
//
// Digests named Digest are lower-case hex; HashOfHashes is base64, as in DO's JSON.
package api

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

// Number is an integer that may arrive as a JSON string.
type Number int64

// UnmarshalJSON reads 5, "5" and "" (zero).
func (n *Number) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if s == "" || s == "null" {
		*n = 0
		return nil
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return fmt.Errorf("api: %q is not an integer", s)
	}
	*n = Number(v)
	return nil
}

// Problem is an error reply (RFC 9457).
type Problem struct {
	Type   string `json:"type,omitempty"` // a name of ours, such as "unknown-content"
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`

	RetrySecs int64 `json:"retrySecs,omitempty"` // when asking again may help; also the header Retry-After
}

// Error returns what a user reads.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Title + ": " + p.Detail
}

// Geo is the reply of GET /geo.
type Geo struct {
	ExternalIpAddress        string
	CountryCode              string
	Region                   string
	Site                     string // behind one WAN link; never empty
	KeyValue_EndpointFullUri string
	Version                  string
	CacheHost                string
}

// KeyValue is the reply of GET /all.
type KeyValue struct {
	Site                          string
	Group                         string
	ContentPolicy_EndpointFullUri string // template with {contentId}
	Discovery_EndpointFullUri     string // template with {contentId}
	DiscoveryV2_EndpointFullUri   string // template with {contentId}
	Metadata_EndpointFullUri      string // template with {manifestDigest}
	PiecesHash_EndpointFullUri    string // template with {hashOfHashes} (hex); the raw form
	GrantKeys                     [][]byte
	Settings                      []Setting
	DenyListVersion               int64
	LANKeys                       []LANKey `json:",omitempty"` // of the caller's group: previous, current and next
	Origins                       []string `json:",omitempty"` // base URLs of distribution points, those of the caller's site first
}

// LANKey seals the LAN datagrams of one group (package lan).
type LANKey struct {
	ID     []byte // 8 bytes; names the key in the open
	Secret Secret // 32 bytes
	Starts int64  // Unix seconds: it is sealed with from then on
}

// Secret is bytes that are sent to whoever they are for, and never shown: it prints as
// "(secret)".
type Secret []byte

// String hides the bytes.
func (Secret) String() string { return "(secret)" }

// Format hides the bytes whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// LogValue hides the bytes.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Setting is one setting that the fleet's administrator gave.
type Setting struct {
	Name     string
	Value    string
	Provider string // fleet, site, group or device
	Site     string `json:",omitempty"` // of the devices that it is for; of provider site
}

// ContentPolicy is the reply of GET /content/{contentId}/contentpolicy.
type ContentPolicy struct {
	ContentId             string
	Version               uint64
	Generation            int64
	ManifestDigest        string
	HashOfHashes          string
	Size                  int64 // bytes of all files
	Peerable              bool
	ManifestUrls          []string // nearest giver first
	PiecesHashFileCdnUrls []string // raw form, nearest giver first
	ContentCdnUrls        []string // the concatenation, with ranges; nearest first
	Policies              Policies
	Grant                 []byte // identity.SignedGrant
	Signature             []byte `json:",omitempty"` // the publisher's minisign file
	Manifest              []byte `json:",omitempty"` // inline, when it and HashFile have at most 16 KiB
	HashFile              []byte `json:",omitempty"` // raw form
}

// Policies are a content's quality-of-service numbers.
type Policies struct {
	ForegroundQosBps       int64 // bytes a second
	BackgroundQosBps       int64 // bytes a second
	MaxCacheAgeSecs        int64
	ExpireAtSecsSinceEpoch int64 // 0: never
}

// Array is one element of Discovery's reply, the best first.
type Array struct {
	CollectiveArray string // base URL that ends in /; join/ and leave/ are appended
	Scope           string // "site" or "group"
	TTLSecs         int64
}

// JoinRequest is the body of POST /join/, or one element of its Contents.
type JoinRequest struct {
	ContentId        string
	AltCatalogId     string // URL that the content is known by, where ContentId is not
	Version          Number
	HashOfHashes     string // base64; names the swarm within the caller's group; empty: the swarm of AltCatalogId
	ManifestDigest   string
	PeerId           string // 32 hex digits of the device id, then 8 zeros
	ReportedIp       string // address to reach the device's swarm port at; empty: the connection's source
	Port             Number // swarm port
	Scope            Number // download mode
	IsBackground     Number
	Left             Number // bytes not held yet; 0: complete
	Uploaded         Number // bytes to peers
	Downloaded       Number // bytes from peers
	DownloadedCdn    Number // bytes from origin
	UploadedBPS      Number
	DownloadedBPS    Number
	PeersWanted      Number // 0: the array's default
	JoinRequestEvent Number // 1 started, 2 periodic, 3 complete
	Seq              Number
	WantLease        bool          // the device may and would fetch from outside the site
	Stalled          bool          // no new piece for 5 s, though others may hold them
	LeaseEpoch       int64         // of the lease that the device believes to hold; 0: none
	Subnet           string        // prefix of the device's link, such as "10.1.2.0/24"; empty: none
	LeaderEpoch      Number        // of its leadership in Subnet; 0: it leads none. A higher one takes over the subnet's lease
	Leader           string        // PeerId of the device that it follows in Subnet; empty: none. Who is followed keeps the lease
	Contents         []JoinRequest `json:",omitempty"` // several at once; the fields above are then ignored
}

// JoinReply answers a JoinRequest, or each of its Contents in order.
type JoinReply struct {
	Peers      []Peer
	NextMillis int64 // when to join again
	Lease      Lease
	Generation int64       // the content's newest; higher than the caller's: it is stale
	Error      *Problem    `json:",omitempty"` // of this content, when several were asked
	Replies    []JoinReply `json:",omitempty"`
}

// Peer is a device that holds or downloads the same bytes in the same group.
type Peer struct {
	PeerId  string // as in JoinRequest
	Address string // host:port
	Type    string // LinkLocal (of the caller's subnet), LAN (of its site), Group or Internet
	Left    int64
}

// Lease says which device of the site fetches these bytes from outside.
type Lease struct {
	Mine           bool
	Holder         string // PeerId; empty when nobody holds it
	Epoch          int64  // grows with each change of holder
	ExpiresMillis  int64  // from now
	BytesPerSecond int64  // the holder's share of the site's WAN budget; 0: no limit
}

// LeaveRequest is the body of POST /leave/.
type LeaveRequest struct {
	HashOfHashes string
	PeerId       string
}

// EnrolRequest is the body of POST /v1/enrol.
type EnrolRequest struct {
	Secret []byte // of the token
	CSR    []byte // DER; only its key is used
	Name   string // host name, for people
}

// Enrolment is the reply of POST /v1/enrol and /v1/renew.
type Enrolment struct {
	Fleet     string
	Device    string   // hex id
	Group     string   // empty for an origin
	Chain     [][]byte // DER, leaf first
	Roots     [][]byte // DER
	GrantKeys [][]byte // Ed25519 public keys
}

// RenewRequest is the body of POST /v1/renew. It is sent without a client certificate, since
// an expired one renews too: the request's own signature proves the key.
type RenewRequest struct {
	CSR   []byte   // DER, for the key of Chain
	Chain [][]byte // DER, leaf first; the certificate to renew
}

// LANPassRequest is the body of POST /v1/lanpass. The caller's certificate says for whom.
type LANPassRequest struct {
	Key []byte // Ed25519 public key to speak with in LAN datagrams
}

// LANPassReply is the reply of POST /v1/lanpass.
type LANPassReply struct {
	Pass []byte // identity's signed LAN pass
}

// ProbeRequest is the body of POST /v1/probe.
type ProbeRequest struct {
	Port Number // swarm port, at the address that the connection comes from
}

// ProbeReply says whether the server reached the caller's swarm port.
type ProbeReply struct {
	Reached       bool
	Address       string // host:port that was dialled
	Reason        string `json:",omitempty"` // why it was not reached
	ExpiresMillis int64  // from now: how long the result counts
}

// TicketRequest is the body of POST /v1/tickets: one publish of a content at one
// distribution point.
type TicketRequest struct {
	ContentId string
	Version   uint64
	Groups    []string // who may read it; empty: all groups
	Origin    string   // hex device id of the distribution point; empty: any
	Urls      []string `json:",omitempty"` // that the content will be known by: refused now when another one has them
}

// TicketReply is the reply of POST /v1/tickets, and of POST /v1/inquiries: then the ticket
// permits its bearer, an administrator, to ask a distribution point to make sure of the content.
type TicketReply struct {
	Ticket []byte // identity's signed ticket
}

// InquiryRequest is the body of POST /v1/inquiries.
type InquiryRequest struct {
	ContentId string
	Version   uint64
}

// Reports is the body of POST /v1/reports; a report whose job is known already changes
// nothing, so that it can be sent again.
type Reports struct {
	Reports []Report
}

// Report tells of one download that has ended.
type Report struct {
	Job             string // the device's own id for it, 1 to 64 characters
	ContentId       string
	Version         uint64
	ManifestDigest  string
	State           string // done, failed or cancelled
	Error           string `json:",omitempty"`
	Started, Ended  int64  // Unix seconds
	Size            int64  // bytes
	BytesFromPeers  int64
	BytesFromOrigin int64
	BytesToPeers    int64
	WanIdleMillis   int64 // while it was to fetch pieces for its site and none of their bytes came
}

// PublishRequest is the body of POST /v1/contents.
type PublishRequest struct {
	Manifest []byte
	HashFile []byte   // raw form
	Origins  []string // base URLs of distribution points that hold the bytes
	Groups   []string // who may read it; empty: all groups
	Replaces string   `json:",omitempty"` // manifest digest that must be the current one (compare-and-set)
	// Signature is the publisher's minisign file, empty for none.
	Signature []byte `json:",omitempty"`
	Ticket    []byte `json:"-"` // sent as a header: of the publisher for whom an origin registers; it decides the groups then
}

// ContentURLs is the body of POST /v1/contents/{name}/urls.
type ContentURLs struct {
	Urls []string // that this version is known by from now on, and no others
}

// Content is what administration shows of a content, and the reply of POST /v1/contents.
type Content struct {
	ContentId      string   `json:"contentId"`
	Version        uint64   `json:"version"`
	Generation     int64    `json:"generation"`
	ManifestDigest string   `json:"manifestDigest"`
	HashOfHashes   string   `json:"hashOfHashes"`
	Size           int64    `json:"size"`
	Files          int      `json:"files"`
	Groups         []string `json:"groups"`
	Origins        []string `json:"origins"`
	URLs           []string `json:"urls"`                      // that it is known by
	Published      int64    `json:"published"`                 // Unix seconds
	Signed         bool     `json:"signed"`                    // by its publisher
	Differs        int      `json:"expectedDiffers,omitempty"` // devices that expect other files; only the list counts them
	Signature      []byte   `json:"signature,omitempty"`       // the publisher's minisign file; only the reply of POST /v1/contents has it
}

// Site is a place behind one WAN link.
type Site struct {
	Name  string   `json:"name"`
	CIDRs []string `json:"cidrs"`
}

// Group is a set of devices that may exchange content.
type Group struct {
	Name    string `json:"name"`
	Devices int    `json:"devices"`
}

// Device is an enrolled device or origin.
type Device struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Role     string `json:"role"`
	Group    string `json:"group"`
	Enrolled int64  `json:"enrolled"` // Unix seconds
	Revoked  bool   `json:"revoked"`
}

// Token is what administration shows of a token: never the secret, except in the reply that made it.
type Token struct {
	ID      string `json:"id"`
	Kind    string `json:"kind"` // admin, publish, origin or join
	Group   string `json:"group"`
	Expires int64  `json:"expires"` // Unix seconds
	Left    int    `json:"left"`    // uses; -1: unlimited
	Text    string `json:"text,omitempty"`
}

// JSON returns v as JSON; v is one of this package's types, which always marshal.
func JSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("api: " + err.Error())
	}
	return b
}
