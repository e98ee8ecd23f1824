package api

// MaxLsz is the most bytes of an LszRequest.
const MaxLsz = 4 << 20

// LszRequest is the body of POST /lsz/{contentId}/{version}: a distribution point is asked to
// make sure that its manifest is of the files that the caller's management system expects.
// Version 0 stands for the newest that the caller may read.
//
// The reply has all that a download needs, so a device can begin one while no service answers;
// reading then takes a grant that it had before, or a publisher's signature in its stead.
type LszRequest struct {
	Files []ExpectedFile // what the files must be; none: whatever they are
	Match string         `json:",omitempty"` // exact (default), or subset: the manifest may hold more
	Force bool           `json:",omitempty"` // where the manifest does not fit, read all bytes again
}

// ExpectedFile is what one file must be.
type ExpectedFile struct {
	Name      string
	Algorithm string // SHA1, SHA256 or SHA-256
	Digest    string // hex
	Size      Number `json:",omitempty"` // bytes; for people, hashes decide
}

// What a distribution point says of its manifest.
const (
	LszFits    = "fits"           // it is the catalog's
	LszDiffers = "origin-differs" // the catalog names another one, or none: the manifest is for this job alone
	LszReading = "reading"        // its files are being read; ask again
	LszStale   = "origin-stale"   // type of the Problem (409, with Retry-After) where its own bytes do not fit
)

// LszReply answers it. With Outcome LszReading only Done, Total and RetrySecs are set.
type LszReply struct {
	ContentId          string
	Version            uint64
	Outcome            string
	ManifestDigest     string
	HashOfHashes       string // base64
	Size               int64  // bytes of all files
	Generation         int64  // of the catalog; 0: the distribution point does not know it
	Signature          []byte // the distribution point's, of the manifest digest
	PublisherSignature []byte `json:",omitempty"` // a minisign file
	ManifestUrl        string
	PiecesHashFileUrl  string // raw form
	ContentUrl         string // the concatenation, with ranges
	Manifest           []byte `json:",omitempty"` // inline, when it and HashFile have at most 16 KiB
	HashFile           []byte `json:",omitempty"` // raw form

	Done, Total int64 `json:",omitempty"` // bytes read
	RetrySecs   int64 `json:",omitempty"` // when to ask again
}

// Differs is the body of POST /content/{contentId}/differs: the caller's management system
// expects files that the catalog's manifest does not have.
type Differs struct {
	Version        Number
	ManifestDigest string // that does not fit
	MetadataHash   string `json:",omitempty"` // hex, of what is expected
	Summary        string // for people, at most 1,024 bytes
}

// ExpectedDiffers is one device's Differs, as administration shows it.
type ExpectedDiffers struct {
	Device         string `json:"device"`
	ManifestDigest string `json:"manifestDigest"`
	MetadataHash   string `json:"metadataHash,omitempty"`
	Summary        string `json:"summary"`
	At             int64  `json:"at"` // Unix seconds
}
