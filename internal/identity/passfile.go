package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	lanFile = "lan.pem" // of a credentials directory: key, then the signed pass
	pemPass = "FRESHET LAN PASS"
)

// Speaker is what a device speaks with in the LAN's datagrams: a private key and the pass for
// it. It is immutable.
type Speaker struct {
	Key    ed25519.PrivateKey
	Signed []byte // the pass with its signature; nil: none was issued yet
	Pass   Pass   // in Signed
}

// NewSpeaker makes a key, for which no pass was issued yet.
func NewSpeaker() (*Speaker, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("identity: make lan key: %w", err)
	}
	return &Speaker{Key: key}, nil
}

// Public returns the key that a pass is asked for.
func (s *Speaker) Public() ed25519.PublicKey { return s.Key.Public().(ed25519.PublicKey) }

// With returns the same key with a pass, which is for that key. Who signed it is for others
// to check.
func (s *Speaker) With(signed []byte) (*Speaker, error) {
	if len(signed) < ed25519.SignatureSize || len(signed) > MaxPass {
		return nil, fmt.Errorf("identity: lan pass of %d bytes", len(signed))
	}
	p, err := ParsePass(signed[:len(signed)-ed25519.SignatureSize])
	if err != nil {
		return nil, err
	}
	if [ed25519.PublicKeySize]byte(s.Public()) != p.Key {
		return nil, fmt.Errorf("identity: the lan pass of %s is not for this key", p.Device)
	}
	return &Speaker{Key: s.Key, Signed: signed, Pass: p}, nil
}

// LoadSpeaker reads what [Speaker.Save] wrote. The error is fs.ErrNotExist when the directory
// holds none.
func LoadSpeaker(dir string) (*Speaker, error) {
	path := filepath.Join(dir, lanFile)
	key, _, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("identity: %q holds no Ed25519 key; remove it, the agent makes another", path)
	}
	signed, err := readPass(path)
	if err != nil || signed == nil {
		return &Speaker{Key: ed}, err
	}
	s, err := (&Speaker{Key: ed}).With(signed)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w; remove it, the agent makes another", path, err)
	}
	return s, nil
}

// OpenSpeaker is LoadSpeaker, and makes and saves a key where there is none.
func OpenSpeaker(dir string) (*Speaker, error) {
	s, err := LoadSpeaker(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if s, err = NewSpeaker(); err != nil {
		return nil, err
	}
	return s, s.Save(dir)
}

func readPass(path string) ([]byte, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	for {
		block, rest := pem.Decode(b)
		if block == nil || block.Type == pemPass {
			if block == nil {
				return nil, nil
			}
			return block.Bytes, nil
		}
		b = rest
	}
}

// Save writes key and pass into dir, which it creates, readable by its owner alone.
func (s *Speaker) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("identity: save lan key: %w", err)
	}
	b, err := appendKey(nil, s.Key)
	if err != nil {
		return err
	}
	if s.Signed != nil {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: pemPass, Bytes: s.Signed})...)
	}
	return writeFile(filepath.Join(dir, lanFile), b)
}
