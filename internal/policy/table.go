package policy

import (
	"math"
	"slices"
)

// key is a setting's place in the table.
type key int

const (
	downloadMode key = iota
	minFileSizeToCache
	minRAMAllowedToPeer
	minDiskSizeAllowedToPeer
	maxCacheAge
	maxCacheSize
	absoluteMaxCacheSize
	delayForegroundDownloadFromHTTP
	delayBackgroundDownloadFromHTTP
	uploadSlots
	maxPeers
	pieceBuffers
	joinInterval
	wholeFileCheck
	plainSwarm
	publisherKeys
	requireSignature
	lanDatagrams
	lanPort
	leaderWeight
	onBattery
	metered
	metadataValidation
	metadataMatch
	metadataDirectory
	keys // the number of settings
)

// doMax is the largest number of DO's 32-bit settings.
const doMax = math.MaxUint32

// Scopes of the table. What weakens a device's own safety is not for a service to set.
var (
	anywhere  = []Provider{File, Env, Flag, Fleet, Site, Group, Device}
	localOnly = []Provider{File, Env, Flag}
)

// trusting are the scopes of what a device believes. The device's own word stands here.
var trusting = []Provider{File, Env, Flag, Fleet}

// deviceStates are the words of what the agent may find out by itself.
var deviceStates = []string{"auto", "yes", "no"}

// table is never changed.
var table = [keys]Setting{
	downloadMode: {
		Name: "DODownloadMode", Kind: Enum, Choices: []int64{0, 1, 2, 3, 99},
		Refused: map[int64]string{
			100: "100 (bypass) hands the download to BITS, which freshet does not use: take 0 for HTTP without peers or 99 for simple mode",
		},
		Default: 1, DODefault: 1, Scopes: anywhere,
		Help: "Which devices of the certificate's group may exchange content: 0 none, HTTP only; 1 those of the same site; 2 the whole group; 3 the whole group, also across NATs; 99 simple mode: no peers and no peer services.",
	},
	minFileSizeToCache: {
		Name: "DOMinFileSizeToCache", Kind: Int, Unit: "MB", Min: 0, Max: 100_000,
		Default: 0, DODefault: 50, Scopes: anywhere,
		Help: "Smallest content that is exchanged with peers. It counts the size of the whole content. 0, which DO does not have, sets no limit.",
	},
	minRAMAllowedToPeer: {
		Name: "DOMinRAMAllowedToPeer", Kind: Int, Unit: "GB", Min: 1, Max: 100_000,
		Default: 1, DODefault: 4, Scopes: anywhere,
		Help: "Least memory of a device that exchanges content with peers; a device of just that size may.",
	},
	minDiskSizeAllowedToPeer: {
		Name: "DOMinDiskSizeAllowedToPeer", Kind: Int, Unit: "GB", Min: 1, Max: 100_000,
		Default: 8, DODefault: 32, Scopes: anywhere,
		Help: "Least capacity of the cache's disk for a device that exchanges content with peers; a disk of just that size will do.",
	},
	maxCacheAge: {
		Name: "DOMaxCacheAge", Kind: Duration, Unit: "seconds", Min: 0, Max: doMax,
		Default: 30 * 24 * 3600, DODefault: 3 * 24 * 3600, Scopes: anywhere,
		Help: "How long content stays in the cache after its last use. 0 sets no limit.",
	},
	maxCacheSize: {
		Name: "DOMaxCacheSize", Kind: Int, Unit: "percent", Min: 1, Max: 100,
		Default: 20, DODefault: 20, Scopes: anywhere,
		Help: "Largest cache, as a part of the disk space that is free or taken by the cache itself. DOAbsoluteMaxCacheSize wins when it is set.",
	},
	absoluteMaxCacheSize: {
		Name: "DOAbsoluteMaxCacheSize", Kind: Int, Unit: "GB", Min: 0, Max: doMax,
		Default: Unset, DODefault: Unset, Scopes: anywhere,
		Help: "Largest cache. It replaces DOMaxCacheSize. 0 sets no limit.",
	},
	delayForegroundDownloadFromHTTP: {
		Name: "DODelayForegroundDownloadFromHttp", Kind: Duration, Unit: "seconds", Min: 0, Max: doMax,
		Default: 0, DODefault: 0, Scopes: anywhere,
		Help: "How long a foreground download that may use peers waits for them before it asks an HTTP source.",
	},
	delayBackgroundDownloadFromHTTP: {
		Name: "DODelayBackgroundDownloadFromHttp", Kind: Duration, Unit: "seconds", Min: 0, Max: doMax,
		Default: 0, DODefault: 0, Scopes: anywhere,
		Help: "The same for a background download.",
	},
	uploadSlots: {
		Name: "uploadSlots", Kind: Int, Unit: "pieces", Min: 1, Max: 1024,
		Default: 4, DODefault: Unset, Scopes: anywhere,
		Help: "How many pieces of one content the device sends at the same time, one MiB of memory each; further ones wait for a slot.",
	},
	maxPeers: {
		Name: "maxPeers", Kind: Int, Unit: "connections", Min: 1, Max: 1024,
		Default: 40, DODefault: Unset, Scopes: anywhere,
		Help: "How many peers one download is connected with.",
	},
	pieceBuffers: {
		Name: "pieceBuffers", Kind: Int, Unit: "MiB", Min: 4, Max: 4096,
		Default: 24, DODefault: Unset, Scopes: anywhere,
		Help: "Memory for pieces on their way between network, hash and disk, one MiB a piece, for all downloads together.",
	},
	joinInterval: {
		Name: "joinInterval", Kind: Duration, Unit: "seconds", Min: 1, Max: 3600,
		Default: 10, DODefault: Unset, Scopes: anywhere,
		Help: "How long a device that lacks pieces and holds no lease waits at most between two joins of an array.",
	},
	wholeFileCheck: {
		Name: "wholeFileCheck", Kind: Bool,
		Default: 1, DODefault: Unset, Scopes: anywhere,
		Help: "Take each file's whole SHA-256 before it gets its final name. Without it the pieces' hashes are the check, where the HashOfHashes was authenticated.",
	},
	plainSwarm: {
		Name: "plainSwarm", Kind: Bool,
		Default: 0, DODefault: Unset, Scopes: localOnly,
		Help: "A laboratory setting: speak the swarm protocol without TLS, so that peers are neither authenticated nor private. Pieces are verified all the same.",
	},
	publisherKeys: {
		Name: "publisherKeys", Kind: PublicKeys,
		Default: Unset, DODefault: Unset, Scopes: trusting, LocalWins: true,
		Help: "Publishers' minisign keys, each pinned for the content ids that fit its pattern: PATTERN=KEY, several parted by commas. A pattern is a content id, or its beginning and *. An unsigned manifest of such a content is refused, at publishing and by devices. Keys set on the device itself are not replaced by the fleet's. A change acts on devices from the agent's next start.",
	},
	requireSignature: {
		Name: "requireSignature", Kind: Bool,
		Default: 0, DODefault: Unset, Scopes: trusting, LocalWins: true,
		Help: "Refuse every manifest without the signature of a publisher whose key is pinned for its content id, so that not even the fleet's server can bring a content of its own. Set on the device itself, the fleet cannot take it back. A change acts from the agent's next start.",
	},
	lanDatagrams: {
		Name: "lanDatagrams", Kind: Bool,
		Default: 1, DODefault: Unset, Scopes: anywhere,
		Help: "Speak with the other devices of the subnet by sealed multicast and broadcast datagrams, which elections and Validate Metadata need. Without them, devices find those of their own subnet through the array. Agents that run follow a change within about a minute.",
	},
	lanPort: {
		Name: "lanPort", Kind: Int, Min: 1, Max: math.MaxUint16,
		Default: 7680, DODefault: Unset, Scopes: anywhere,
		Help: "UDP port of these datagrams. Devices with different ports do not hear each other. A change acts from the agent's next start.",
	},
	leaderWeight: {
		Name: "leaderWeight", Kind: Int, Min: 0, Max: 99,
		Default: Unset, DODefault: Unset, Scopes: anywhere,
		Help: "How much the device is preferred as the one that fetches for its subnet. Not set, it is what its kind says: a server 61, a desktop 50, a laptop 40, a wireless device 30. 0 never leads, and fetches for itself where nobody does.",
	},
	onBattery: {
		Name: "onBattery", Kind: Word, Words: deviceStates,
		Default: 0, DODefault: Unset, Scopes: localOnly,
		Help: "Whether the device runs on its battery; one that does is the last to fetch for its subnet. auto looks each minute, on Linux; elsewhere it is no.",
	},
	metered: {
		Name: "metered", Kind: Word, Words: deviceStates,
		Default: 0, DODefault: Unset, Scopes: localOnly,
		Help: "Whether the device's network is paid for by what crosses it; such a device is the last to fetch for its subnet. auto is no: this version cannot tell.",
	},
	metadataValidation: {
		Name: "metadataValidation", Kind: Word, Words: []string{"enforce", "report", "off"},
		Default: 0, DODefault: Unset, Scopes: anywhere, LocalWins: true,
		Help: "What the device does where a content's files are not those that its management system expects: enforce uses only what fits, report uses it and says so, off compares nothing. In a device's own settings, CompatibilityFlags stands for it: enforce with the bit 0x40000000, off without. Set on the device itself, no service replaces it. A change acts from the agent's next start.",
	},
	metadataMatch: {
		Name: "metadataMatch", Kind: Word, Words: []string{"exact", "subset"},
		Default: 0, DODefault: Unset, Scopes: anywhere, LocalWins: true,
		Help: "Whether a content holds just the files that are expected, or may hold more. A change acts from the agent's next start.",
	},
	metadataDirectory: {
		Name: "metadataDirectory", Kind: Directory,
		Default: Unset, DODefault: Unset, Scopes: localOnly,
		Help: "Directory with *.xml files that say what the files of contents must be, as Content documents of Configuration Manager. A change of the files acts within 15 s, on Windows within 5 min, one of the setting from the agent's next start.",
	},
}

// Table returns all settings, in the order of the documentation.
func Table() []Setting { return slices.Clone(table[:]) }

// find returns the key of a name.
func find(name string) (key, bool) {
	for k := range table {
		if table[k].Name == name {
			return key(k), true
		}
	}
	return 0, false
}
