package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"time"

	"freshet/internal/content"
)

// barePipe sends a file over one loopback connection in pieces, which the other end hashes
// and writes, and syncs at the end: what any such transfer must do at least.
func barePipe(ctx context.Context, source, dest string, plain bool) (cpu float64, wall time.Duration, err error) {
	server, caller, err := pipeConfig()
	if err != nil {
		return 0, 0, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	defer ln.Close()
	defer os.Remove(dest)
	before, start := cpuTime(), time.Now()
	sent := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			if !plain {
				c = tls.Server(c, server)
			}
			err = errors.Join(pour(c, source), c.Close())
		}
		sent <- err
	}()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", ln.Addr().String())
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	if !plain {
		c = tls.Client(c, caller)
	}
	if err := catch(c, dest); err != nil {
		return 0, 0, err
	}
	if err := <-sent; err != nil {
		return 0, 0, err
	}
	return cpuTime().since(before).all(), time.Since(start), nil
}

// pour writes the file to c a piece at a time.
func pour(c net.Conn, source string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, content.PieceSize)
	for {
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// catch hashes and writes what comes, a piece at a time.
func catch(c net.Conn, dest string) error {
	f, err := os.Create(dest)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, content.PieceSize)
	var sum [sha256.Size]byte
	for off := int64(0); ; {
		n, err := io.ReadFull(c, buf)
		if n > 0 {
			sum = sha256.Sum256(buf[:n])
			if _, err := f.WriteAt(buf[:n], off); err != nil {
				return err
			}
			off += int64(n)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if sum == [sha256.Size]byte{} {
		return fmt.Errorf("bench: nothing arrived")
	}
	return f.Sync()
}

// pipeConfig makes a certificate for this one use.
func pipeConfig() (server, caller *tls.Config, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"pipe"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	server = &tls.Config{MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	caller = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "pipe"}
	return server, caller, nil
}
