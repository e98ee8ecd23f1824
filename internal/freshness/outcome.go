package freshness

import "fmt"

// Outcome says what came of a comparison, a request or a hint. Its name is stable: status, the
// log and docs/freshness.md bear it.
type Outcome uint8

// Of downloads.
const (
	NoOutcome         Outcome = iota
	OK                        // the manifest is believed and fits
	BytesNeeded               // it is taken, and its bytes will decide
	ExpectedDiffers           // a manifest of services, DP or cache host does not fit the expected metadata
	ExpectedChanged           // other metadata is expected than before
	ExpectedUnread            // the expected metadata cannot be read
	OriginStale               // the DP's own bytes do not fit
	OriginDiffers             // the DP's bytes fit, but the catalog names others
	OriginUnavailable         // the DP did not say
	OriginLies                // the DP calls fitting what was rejected
	PeerStale                 // a device gave or named another manifest
	PeerDeaf                  // a peer did not acknowledge Validate Metadata
	PeerBanned                // a peer offered a rejected manifest after it was told
	PeerKept                  // a peer was told, checked, and its own sources name its manifest
	NotBelieved               // nothing vouches for the manifest
	Unsigned                  // a pinned key's signature is wanted and missing
	SignatureExpired          // the publisher's signature has expired
	OlderGeneration           // the manifest is of a lower generation than one seen
	GenerationRaised          // the catalog has a higher generation
)

// Of hints received.
const (
	HintConfirmed   Outcome = iota + 0x40 // the manifest held was stale
	HintRefuted                           // a source of this device names the manifest held
	HintUnconfirmed                       // its sources name neither
	HintUnanswered                        // nobody answered in time
	HintMuted                             // the sender was wrong before
	HintRepeated                          // the same was checked a while ago
	HintCrowded                           // too much is being checked
)

// outcomes are the code and the text of each outcome.
var outcomes = map[Outcome][2]string{
	NoOutcome:         {"none", "nothing to tell"},
	OK:                {"fits", "the manifest is the one to use"},
	BytesNeeded:       {"bytes-needed", "the manifest has no hashes of the kind that the expected metadata has; the files' bytes decide"},
	ExpectedDiffers:   {"expected-differs", "the catalog's manifest does not fit the expected metadata: the distribution point is asked to make sure"},
	ExpectedChanged:   {"expected-changed", "the expected metadata is another than before: the download starts again"},
	ExpectedUnread:    {"expected-unread", "the expected metadata cannot be read: correct the file or the provider"},
	OriginStale:       {"origin-stale", "the files at the distribution point do not fit the expected metadata: update them there, or correct the metadata"},
	OriginDiffers:     {"origin-differs", "the distribution point's files fit, but the catalog names others: this download takes them from there alone; publish them"},
	OriginUnavailable: {"origin-unavailable", "the distribution point did not answer whether its files fit"},
	OriginLies:        {"origin-lies", "the distribution point calls fitting what does not fit: look at its clock, disk and version"},
	PeerStale:         {"peer-stale", "a device has another manifest: it was told to check"},
	PeerDeaf:          {"peer-deaf", "a device did not acknowledge: it is left out of this download"},
	PeerBanned:        {"peer-banned", "a device goes on offering what it was told is stale: it is banned for this manifest"},
	PeerKept:          {"peer-kept", "a device was told that it is stale, and its sources say it is not: this device's metadata may be the old one"},
	NotBelieved:       {"not-believed", "neither catalog, publisher nor distribution point vouches for the manifest"},
	Unsigned:          {"unsigned", "a pinned publisher's signature is required, and the manifest has none"},
	SignatureExpired:  {"signature-expired", "the publisher's signature has expired: sign and publish again"},
	OlderGeneration:   {"older-generation", "the manifest is older than one that this device has seen: publish again, with a new generation"},
	GenerationRaised:  {"generation-raised", "the content was published anew"},
	HintConfirmed:     {"hint-confirmed", "a device said that the copy here is stale, and it was: its names are gone"},
	HintRefuted:       {"hint-refuted", "a device said that the copy here is stale, and it is not: the device is not heard on this content for an hour"},
	HintUnconfirmed:   {"hint-unconfirmed", "a device said that the copy here is stale, and no source of this device agrees: it is served again"},
	HintUnanswered:    {"hint-unanswered", "whether the copy here is stale could not be asked: it is served again"},
	HintMuted:         {"hint-muted", "a device that was wrong before said that a copy here is stale"},
	HintRepeated:      {"hint-repeated", "the same was checked within ten minutes"},
	HintCrowded:       {"hint-crowded", "too many copies are being checked to check another one"},
}

// String returns the code.
func (o Outcome) String() string {
	if t, ok := outcomes[o]; ok {
		return t[0]
	}
	return fmt.Sprintf("outcome-%d", uint8(o))
}

// Text says what o means to an administrator, and what to do.
func (o Outcome) Text() string { return outcomes[o][1] }

// MarshalText writes the code.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads a code. One that is not known, of another version, is NoOutcome: it is for
// people to see, and no reason to refuse what stands beside it.
func (o *Outcome) UnmarshalText(b []byte) error {
	*o = NoOutcome
	for known, t := range outcomes {
		if t[0] == string(b) {
			*o = known
		}
	}
	return nil
}
