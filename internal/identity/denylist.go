package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"freshet/internal/wire"
)

// MaxDenied is the most devices of a deny list.
const MaxDenied = 1 << 16

// MaxDenyList is the most bytes of a signed deny list.
const MaxDenyList = 1 + 8 + 4 + MaxDenied*len(wire.DeviceID{}) + ed25519.SignatureSize

// DenyList names the devices whose certificates are no longer good although they have not
// expired. A list replaces those of lower version.
type DenyList struct {
	Version int64
	Devices []wire.DeviceID // ascending, no two alike; see NewDenyList
}

// NewDenyList sorts devices and drops doubles.
func NewDenyList(version int64, devices []wire.DeviceID) (DenyList, error) {
	d := slices.Clone(devices)
	slices.SortFunc(d, compareIDs)
	d = slices.Compact(d)
	if len(d) > MaxDenied {
		return DenyList{}, fmt.Errorf("identity: deny list of %d devices, at most %d are allowed; remove those whose certificates have expired", len(d), MaxDenied)
	}
	return DenyList{Version: version, Devices: d}, nil
}

func compareIDs(a, b wire.DeviceID) int { return bytes.Compare(a[:], b[:]) }

// Has reports whether id is on the list.
func (l DenyList) Has(id wire.DeviceID) bool {
	_, found := slices.BinarySearchFunc(l.Devices, id, compareIDs)
	return found
}

// AppendDenyList appends what of l is signed.
func AppendDenyList(b []byte, l DenyList) []byte {
	b = binary.BigEndian.AppendUint64(append(b, codecVersion), uint64(l.Version))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Devices)))
	for _, id := range l.Devices {
		b = append(b, id[:]...)
	}
	return b
}

// ParseDenyList reads what [AppendDenyList] wrote, without a signature.
func ParseDenyList(b []byte) (DenyList, error) {
	var l DenyList
	r := reader{b: b}
	r.version()
	l.Version = r.i64()
	n := r.u32()
	if r.err == nil && (n > MaxDenied || len(r.b) != n*len(wire.DeviceID{})) {
		r.fail(fmt.Errorf("%d devices in %d bytes", n, len(r.b)))
	}
	for range n {
		if r.err != nil {
			break
		}
		var id wire.DeviceID
		copy(id[:], r.take(len(id)))
		if k := len(l.Devices); k > 0 && compareIDs(l.Devices[k-1], id) >= 0 {
			r.fail(errors.New("devices are not in ascending order"))
		}
		l.Devices = append(l.Devices, id)
	}
	if err := r.done(); err != nil {
		return DenyList{}, fmt.Errorf("identity: deny list: %w", err)
	}
	return l, nil
}

// SignDenyList returns l with its signature.
func SignDenyList(key ed25519.PrivateKey, l DenyList) []byte {
	return sign(key, denyPrefix, AppendDenyList(nil, l))
}

// VerifyDenyList returns the list in b when one of keys signed it. Lists do not expire; [Denials]
// keeps the one with the highest version.
func VerifyDenyList(keys []ed25519.PublicKey, b []byte) (DenyList, error) {
	body, err := open(keys, denyPrefix, b)
	if err != nil {
		return DenyList{}, fmt.Errorf("identity: deny list: %w", err)
	}
	return ParseDenyList(body)
}
