package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/identity"
)

// passwordEnv holds the password of an encrypted signing key, where nobody can be asked.
const passwordEnv = "FRESHET_SIGN_PASSWORD"

const signatureLife = 365 * 24 * time.Hour

// signManifest signs m with the publisher's key under the generation that is next.
func signManifest(cmd *cobra.Command, services *client.Client, o *publishOptions, m *content.Manifest) ([]byte, error) {
	key, err := identity.ReadSigningKey(o.sign, func() (string, error) { return askPassword(cmd, o.sign) })
	if err != nil {
		return nil, fmt.Errorf("publish: --sign: %w", err)
	}
	contents, err := services.Contents(cmd.Context())
	if err != nil {
		return nil, err
	}
	manifest, now := content.AppendManifest(nil, m), time.Now()
	t := identity.Terms{
		Generation: nextGeneration(contents, m.Ref, content.DigestOf(manifest), now),
		Groups:     slices.Compact(slices.Sorted(slices.Values(o.groups))), Expires: now.Add(o.expires).UTC().Truncate(time.Second),
	}
	if len(t.Groups) == 0 {
		t.Groups = []string{identity.AllGroups}
	}
	sig, err := identity.SignFor(key, manifest, t)
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	return sig, nil
}

// nextGeneration is the current one for the same bytes again, else a higher one, as the
// catalog counts.
func nextGeneration(contents []api.Content, ref content.Ref, manifest content.Digest, now time.Time) int64 {
	for _, c := range contents {
		if c.ContentId != string(ref.ID) || c.Version != ref.Version {
			continue
		}
		if c.ManifestDigest == manifest.String() {
			return c.Generation
		}
		return max(c.Generation+1, now.Unix())
	}
	return now.Unix()
}

// askPassword takes the password from the environment, else from the terminal.
func askPassword(cmd *cobra.Command, path string) (string, error) {
	if p, ok := os.LookupEnv(passwordEnv); ok {
		return p, nil
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", errors.New("there is no terminal to ask for it: set " + passwordEnv)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Password of %s: ", path)
	b, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	return string(b), err
}
