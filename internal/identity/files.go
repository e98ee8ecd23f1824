package identity

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// PEM types.
const (
	pemKey  = "PRIVATE KEY"
	pemCert = "CERTIFICATE"
)

const maxFile = 256 << 10 // bytes of any file that this package reads

// writeFile puts b under path, whole or not at all, readable by its owner alone, synced.
func writeFile(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // made 0600
	if err != nil {
		return fmt.Errorf("identity: write %q: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("identity: write %q: %w", path, err)
		}
	}()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename in dir durable; Windows has no such call and needs none.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// readFile reads a file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return nil, fmt.Errorf("identity: %q is not a file of at most %d bytes", path, maxFile)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return b, nil
}

func appendKey(b []byte, key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("identity: marshal private key: %w", err)
	}
	return append(b, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der})...), nil
}

func appendCerts(b []byte, ders [][]byte) []byte {
	for _, der := range ders {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der})...)
	}
	return b
}

// readPEM returns the private key (nil when there is none) and the certificates of a file.
func readPEM(path string) (key crypto.PrivateKey, certs [][]byte, err error) {
	b, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			return key, certs, nil
		}
		switch block.Type {
		case pemKey:
			if key, err = x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
				return nil, nil, fmt.Errorf("identity: key in %q: %w", path, err)
			}
		case pemCert:
			certs = append(certs, block.Bytes)
		}
		b = rest
	}
}

// parseChain parses DER certificates, at most 8.
func parseChain(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 || len(ders) > 8 {
		return nil, fmt.Errorf("identity: %d certificates, want 1 to 8", len(ders))
	}
	certs := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("identity: certificate %d: %w", i, err)
		}
		certs[i] = c
	}
	return certs, nil
}
