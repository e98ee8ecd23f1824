package services

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"freshet/internal/admin"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/identity"
)

// tokenKinds are the kinds of the token files, KIND.token.
var tokenKinds = []string{identity.TokenAdmin, identity.TokenPublish, identity.TokenOrigin, identity.TokenJoin}

// TokenFile returns the path of a kind's token file in a state directory.
func TokenFile(state, kind string) string { return filepath.Join(state, kind+".token") }

func seed() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

// openIdentity opens or makes the fleet's authority and grant key, and issues the server's own
// certificate, which needs no keeping.
func (s *Server) openIdentity() (err error) {
	s.ca, err = identity.OpenCA(s.path(caDir))
	if errors.Is(err, fs.ErrNotExist) {
		s.ca, err = s.newFleet()
	}
	if err != nil {
		return err
	}
	if s.opt.Fleet != "" && s.opt.Fleet != s.ca.Fleet() {
		return fmt.Errorf("the state is of fleet %q, not %q; leave --fleet out, or choose another directory", s.ca.Fleet(), s.opt.Fleet)
	}
	if s.key, err = identity.GrantKey(s.opt.State); err != nil {
		return err
	}
	name := identity.Name{Fleet: s.ca.Fleet(), Role: identity.RoleServer}
	rand.Read(name.Device[:]) // never fails
	s.self, err = s.ca.IssueCredentials(name)
	return err
}

func (s *Server) newFleet() (*identity.CA, error) {
	if _, err := os.Lstat(s.path(catalogFile)); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q is missing although there is a catalog; restore it, or choose an empty directory", s.path(caDir))
	}
	name := s.opt.Fleet
	if name == "" {
		id := make([]byte, 4)
		rand.Read(id) // never fails
		name = "fleet-" + hex.EncodeToString(id)
	}
	return identity.CreateCA(s.path(caDir), name)
}

// openTokens makes the default group and the tokens of a new catalog, and sees to it that
// there is a usable admin token and that the token files carry the server's address. Other
// tokens that were removed, or have expired, are not made anew: that is for an administrator.
func (s *Server) openTokens(ctx context.Context) error {
	now := time.Now()
	all, err := s.catalog.Tokens(ctx)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		if err := s.catalog.AddGroup(ctx, DefaultGroup, now); err != nil && !errors.Is(err, catalog.ErrExists) {
			return err
		}
	}
	admins := slices.ContainsFunc(all, func(t catalog.Token) bool { return t.Kind == identity.TokenAdmin && t.Usable(now) })
	for _, kind := range tokenKinds {
		if len(all) == 0 || kind == identity.TokenAdmin && !admins {
			err = s.newTokenFile(ctx, kind, now)
		} else {
			err = s.readdress(TokenFile(s.opt.State, kind))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readdress writes a token file anew when its address is another. A file that is not there
// stays so: somebody took it away.
func (s *Server) readdress(path string) error {
	t, err := identity.ReadToken(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w; remove the file, and make a token with \"freshet token add\" when it is needed", err)
	}
	if t.Address == s.address {
		return nil
	}
	t.Address = s.address
	return identity.WriteToken(path, t)
}

func (s *Server) newTokenFile(ctx context.Context, kind string, now time.Time) error {
	spec := admin.TokenSpec{Kind: kind, Expires: now.Add(admin.TokenLife), Left: catalog.Unlimited}
	if kind == identity.TokenJoin {
		spec.Group = DefaultGroup
	}
	text, t, err := admin.NewToken(ctx, s.ca, s.catalog, s.address, spec, now)
	if err != nil {
		return err
	}
	s.log.Info("token made", "token", t.ID, "kind", kind, "group", t.Group, "expires", t.Expires)
	return identity.WriteToken(TokenFile(s.opt.State, kind), text)
}

// advertised returns the address that others use: advertise, with the bound port where it has
// none, or the bound address, with one of this machine's where it is bound to all.
func advertised(bound *net.TCPAddr, advertise string) (string, error) {
	port := strconv.Itoa(bound.Port)
	if advertise != "" {
		host, p, err := net.SplitHostPort(advertise)
		if err != nil {
			host, p = advertise, port
		}
		if p == "0" {
			p = port
		}
		return net.JoinHostPort(host, p), nil
	}
	if !bound.IP.IsUnspecified() {
		return bound.String(), nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("find this machine's address: %w; give it with --advertise", err)
	}
	return net.JoinHostPort(ownAddress(addrs).String(), port), nil
}

// ownAddress returns an address that others can reach: IPv4 before IPv6, and loopback where
// there is no other.
func ownAddress(addrs []net.Addr) netip.Addr {
	best := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().IsGlobalUnicast() {
			continue
		}
		if p.Addr().Is4() {
			return p.Addr()
		}
		if best.IsLoopback() {
			best = p.Addr()
		}
	}
	return best
}

// writeFile puts text under path, whole or not at all, readable by its owner alone.
func writeFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // made 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// length tells blob.Metadata the length of a content's bytes by its HashOfHashes.
func (s *Server) length(ctx context.Context, hashOfHashes content.Digest) (int64, error) {
	n, err := s.catalog.SizeOf(ctx, hashOfHashes)
	if errors.Is(err, catalog.ErrNotFound) {
		return 0, fmt.Errorf("hash file %s: %w", hashOfHashes, fs.ErrNotExist)
	}
	return n, err
}
