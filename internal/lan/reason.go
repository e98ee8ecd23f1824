package lan

import (
	"fmt"
	"sync/atomic"
)

// Reason says why a datagram was dropped.
type Reason uint8

// Reasons, in the order of the checks.
const (
	Taken        Reason = iota // it was not
	Foreign                    // from an address that is not on the interface's subnet
	TooLong                    // more than MaxDatagram bytes
	Unsealed                   // too short, of another version, or it does not open with the key that it names
	UnknownKey                 // of another group, or of an old or very new key
	Flood                      // too much that failed came from its source
	Malformed                  // what it seals is not well formed, or the message in it
	Own                        // this device sent it
	Old                        // sent more than Window ago
	Future                     // sent more than Window from now
	Replay                     // it came before
	BadPass                    // the pass is not the server's, has expired, is denied, or of another group
	BadSignature               // the pass's key did not sign it
	Full                       // too many devices spoke lately
	Busy                       // the device is behind with those before
	reasons                    // the number of them
)

var reasonNames = [reasons]string{
	"taken", "foreign", "tooLong", "unsealed", "unknownKey", "flood", "malformed", "own",
	"old", "future", "replay", "badPass", "badSignature", "full", "busy",
}

// String returns the reason in a word, for metrics and logs.
func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// counts counts datagrams by what became of them. It is safe for concurrent use.
type counts [reasons]atomic.Uint64

func (c *counts) add(r Reason) { c[r].Add(1) }

// byName returns the counts that are not zero.
func (c *counts) byName() map[string]uint64 {
	m := map[string]uint64{}
	for r := range c {
		if n := c[r].Load(); n > 0 {
			m[Reason(r).String()] = n
		}
	}
	return m
}
