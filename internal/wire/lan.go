package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"freshet/internal/content"
)

// This file and its neighbours that begin with lan are the messages of the LAN datagrams
// (design sections 4.5 and 6): what stands between the sender's LAN pass and its signature.
// They say nothing of who sent them; that the pass does.
//
//	offset  bytes  field
//	0       1      type, see [LANType]
//	1       n-1    body
//
//	type  n      body
//	0x01  85+    question: standing | subject | zeros up to the length of an answer
//	0x02  85     answer: u64 subject's tag | HashOfHashes | manifest digest | u64 generation | standing
//	0x03  3+70k  heartbeat: u8 weight | u8 k from 1 to [MaxBeats] | k beats
//	0x04  58     resignation: HashOfHashes | u64 epoch | u8 reason | 16 successor, zeros when none
//	0x05  43+    Validate Metadata: a [Validate]'s body, as in the swarm protocol's envelope
//
//	standing, 4 bytes: u8 1 able to go out now, else 0 | u8 share held in tenths, 10 complete |
//	    u8 weight 0 to 99 | u8 priority
//	subject: u8 1 | HashOfHashes
//	         u8 2 | u8 algorithm of the files' hashes | MetadataHash
//	         u8 3 | u64 version, 0 the newest | u8 length | ContentID
//	beat, 70 bytes: HashOfHashes | u64 epoch | u32 pieces held | u32 pieces in all |
//	    u32 KiB a second from outside | u8 flags, see [BeatFlags] | u8 priority | 16 device
//
// A message has exactly the bytes that its fields need, and each message one spelling, so
// that parsing and appending gives the same bytes. Growth comes by new types: whoever does not
// know one drops it. No answer is longer than its question.

// MaxLAN is how long a message may be, in bytes. A datagram has 1,200; the envelope takes 49
// (version, key id, nonce, tag), pass, boot id, counter, time and signature at most 400.
const MaxLAN = 700

// MaxWeight is the highest weight in an election.
const MaxWeight = 99

// LANType is the type of a LAN message.
type LANType uint8

// LAN message types. A seeker asks, holders answer, the best of them leads and beats.
const (
	LANQuestion  LANType = 0x01 // standing | subject | zeros
	LANAnswer    LANType = 0x02 // tag | HashOfHashes | manifest | generation | standing
	LANHeartbeat LANType = 0x03 // weight | count | beats
	LANResign    LANType = 0x04 // HashOfHashes | epoch | reason | successor
	LANValidate  LANType = 0x05 // Validate
)

// ErrLANType says that a message is of no known type: a newer freshet sent it.
var ErrLANType = errors.New("wire: lan message of unknown type")

// LANMessage is a Question, Answer, Heartbeat, Resign or Validate.
type LANMessage interface {
	// AppendLAN appends the message with its type.
	AppendLAN(dst []byte) []byte
}

// Priority is how urgently bytes are wanted.
type Priority uint8

// Priorities, the higher the more urgent.
const (
	Background Priority = 0
	Foreground Priority = 1
)

// Complete is the share of a device that holds everything.
const Complete = 10

// Standing is what counts in an election, but for the device's id.
type Standing struct {
	Able     bool     // can go out now: policy, mains power, not metered
	Share    uint8    // held, in tenths, rounded down; Complete exactly when all is held
	Weight   uint8    // 0: does not stand for election
	Priority Priority // asked for
}

// SubjectBy says how a question names what it asks for.
type SubjectBy uint8

// The values are those of the encoding.
const (
	ByHashOfHashes SubjectBy = 0x01
	ByMetadataHash SubjectBy = 0x02
	ByRef          SubjectBy = 0x03
)

// Subject is what a question asks for. Subjects that mean the same are equal.
type Subject struct {
	By        SubjectBy
	Algorithm content.Algorithm // of the files' hashes; ByMetadataHash
	Digest    content.Digest    // HashOfHashes or MetadataHash
	Ref       content.Ref       // ByRef; Version 0 stands for the newest
}

// Key names the subject by a digest: its own, or that of its spelling.
func (s *Subject) Key() content.Digest {
	if s.By == ByHashOfHashes {
		return s.Digest
	}
	return content.DigestOf(s.append(nil))
}

// Tag returns the bytes of the key by which an answer names its question.
func (s *Subject) Tag() uint64 {
	key := s.Key()
	return binary.BigEndian.Uint64(key[:])
}

// Question asks the subnet who holds the subject, and says how its sender stands itself.
type Question struct {
	Standing
	Subject Subject
}

// Answer says that its sender holds what was asked for.
type Answer struct {
	Tag          uint64 // of the question's subject
	HashOfHashes content.Digest
	Manifest     content.Digest
	Generation   int64 // not negative
	Standing
}

const (
	digestSize   = len(content.Digest{})
	standingSize = 4
	answerSize   = 1 + 8 + 2*digestSize + 8 + standingSize
)

// ParseLAN reads a message with its type. Nothing of b is kept.
func ParseLAN(b []byte) (LANMessage, error) {
	if len(b) == 0 || len(b) > MaxLAN {
		return nil, fmt.Errorf("wire: lan message has %d bytes, want 1 to %d", len(b), MaxLAN)
	}
	switch t, body := LANType(b[0]), b[1:]; t {
	case LANQuestion:
		return parsed(parseQuestion(body))
	case LANAnswer:
		return parsed(parseAnswer(body))
	case LANHeartbeat:
		return parsed(parseHeartbeat(body))
	case LANResign:
		return parsed(parseResign(body))
	case LANValidate:
		return parsed(ParseValidate(body))
	default:
		return nil, fmt.Errorf("%w %#x", ErrLANType, uint8(t))
	}
}

// parsed makes sure that there is no message where there is an error.
func parsed[M LANMessage](m M, err error) (LANMessage, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// AppendLAN appends q, as long as an answer to it at least.
func (q Question) AppendLAN(dst []byte) []byte {
	start := len(dst)
	dst = q.Standing.append(append(dst, byte(LANQuestion)))
	dst = q.Subject.append(dst)
	for len(dst)-start < answerSize {
		dst = append(dst, 0)
	}
	return dst
}

func parseQuestion(b []byte) (Question, error) {
	var q Question
	if len(b) < answerSize-1 {
		return q, fmt.Errorf("wire: question has %d bytes, want at least %d: %w", len(b), answerSize-1, ErrShort)
	}
	var err error
	if q.Standing, err = parseStanding(b); err != nil {
		return Question{}, err
	}
	used, err := q.Subject.parse(b[standingSize:])
	if err != nil {
		return Question{}, err
	}
	rest := b[standingSize+used:]
	if len(rest) > 0 && len(b) != answerSize-1 {
		return Question{}, fmt.Errorf("wire: question has %d bytes that mean nothing", len(rest))
	}
	for _, c := range rest {
		if c != 0 {
			return Question{}, fmt.Errorf("wire: question is filled up with %#x, want zeros", c)
		}
	}
	return q, nil
}

// AppendLAN appends a.
func (a Answer) AppendLAN(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, byte(LANAnswer)), a.Tag)
	dst = append(dst, a.HashOfHashes[:]...)
	dst = append(dst, a.Manifest[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.Generation))
	return a.Standing.append(dst)
}

func parseAnswer(b []byte) (Answer, error) {
	if len(b) != answerSize-1 {
		return Answer{}, fmt.Errorf("wire: answer has %d bytes, want %d", len(b), answerSize-1)
	}
	a := Answer{Tag: binary.BigEndian.Uint64(b)}
	n := 8 + copy(a.HashOfHashes[:], b[8:])
	n += copy(a.Manifest[:], b[n:])
	a.Generation = int64(binary.BigEndian.Uint64(b[n:]))
	if a.Generation < 0 {
		return Answer{}, fmt.Errorf("wire: answer has the generation %d", a.Generation)
	}
	var err error
	if a.Standing, err = parseStanding(b[n+8:]); err != nil {
		return Answer{}, err
	}
	return a, nil
}

func (s Standing) append(dst []byte) []byte {
	able := byte(0)
	if s.Able {
		able = 1
	}
	return append(dst, able, s.Share, s.Weight, byte(s.Priority))
}

// parseStanding reads the first standingSize bytes of b, which the caller made sure of.
func parseStanding(b []byte) (Standing, error) {
	s := Standing{Able: b[0] == 1, Share: b[1], Weight: b[2], Priority: Priority(b[3])}
	if b[0] > 1 || s.Share > Complete || s.Weight > MaxWeight || s.Priority > Foreground {
		return Standing{}, fmt.Errorf("wire: standing % x is out of range", b[:standingSize])
	}
	return s, nil
}

func (s *Subject) append(dst []byte) []byte {
	dst = append(dst, byte(s.By))
	switch s.By {
	case ByRef:
		return appendRef(dst, s.Ref)
	case ByMetadataHash:
		dst = append(dst, byte(s.Algorithm))
	}
	return append(dst, s.Digest[:]...)
}

// parse reads a subject at the start of b and returns its length.
func (s *Subject) parse(b []byte) (int, error) {
	if len(b) < 1 {
		return 0, fmt.Errorf("wire: no subject: %w", ErrShort)
	}
	n := 1
	switch s.By = SubjectBy(b[0]); s.By {
	case ByRef:
		ref, err := parseRef(b[1:], &s.Ref)
		return 1 + ref, err
	case ByMetadataHash:
		if len(b) < 2 {
			return 0, fmt.Errorf("wire: subject without an algorithm: %w", ErrShort)
		}
		if s.Algorithm = content.Algorithm(b[1]); s.Algorithm.Size() == 0 {
			return 0, fmt.Errorf("wire: subject by a MetadataHash of %s", s.Algorithm)
		}
		n = 2
	case ByHashOfHashes:
	default:
		return 0, fmt.Errorf("wire: subject of unknown kind %#x", b[0])
	}
	if len(b) < n+digestSize {
		return 0, fmt.Errorf("wire: subject has %d bytes, want %d: %w", len(b), n+digestSize, ErrShort)
	}
	return n + copy(s.Digest[:], b[n:]), nil
}

func appendRef(dst []byte, r content.Ref) []byte {
	dst = binary.BigEndian.AppendUint64(dst, r.Version)
	return append(append(dst, byte(len(r.ID))), r.ID...)
}

// parseRef reads u64 version | u8 length | ContentID at the start of b and returns its length.
func parseRef(b []byte, r *content.Ref) (int, error) {
	const head = 8 + 1
	if len(b) < head || len(b) < head+int(b[8]) {
		return 0, fmt.Errorf("wire: content id and version have %d bytes: %w", len(b), ErrShort)
	}
	id, err := content.ParseID(string(b[head : head+int(b[8])]))
	if err != nil {
		return 0, fmt.Errorf("wire: %w", err)
	}
	r.ID, r.Version = id, binary.BigEndian.Uint64(b)
	if r.Version>>63 != 0 {
		return 0, fmt.Errorf("wire: version %d of %q is more than 2^63-1", r.Version, id)
	}
	return head + int(b[8]), nil
}
