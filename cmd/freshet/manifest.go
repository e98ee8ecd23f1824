package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"freshet/internal/blob"
	"freshet/internal/content"
	"freshet/internal/expected"
)

func newManifestCommand() *cobra.Command {
	return group(&cobra.Command{Use: "manifest", Short: "Make, show and check manifests, offline"},
		newManifestCreateCommand(), newManifestShowCommand(), newManifestVerifyCommand(), newManifestDiffCommand(), newManifestHashCommand())
}

// createOptions are the flags of "freshet manifest create".
type createOptions struct {
	id       string
	version  uint64
	out      string
	hashFile string
	follow   bool
}

func newManifestCreateCommand() *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use: "create DIR --id ID -o FILE", Short: "Hash a directory into a manifest", Args: takes(1, 1),
		Long: `Hash all files of a directory, each in one read, and write the manifest; its digest is
printed. With --hash-file the hash file is written too, as Delivery Optimization's JSON.`,
		Example: `  freshet manifest create ./tools --id tools --version 3 -o tools.manifest --hash-file tools.phf`,
		RunE:    func(cmd *cobra.Command, args []string) error { return createManifest(cmd, &o, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.id, "id", "", "content id")
	f.Uint64Var(&o.version, "version", 1, "version, from 1")
	f.StringVarP(&o.out, "output", "o", "", "file to write the manifest to")
	f.StringVar(&o.hashFile, "hash-file", "", "file to write the hash file to")
	f.BoolVar(&o.follow, "follow", false, "take what links point to")
	return cmd
}

// contentRef checks the flags --id and --version.
func contentRef(cmd *cobra.Command, id string, version uint64) (content.Ref, error) {
	if id == "" {
		return content.Ref{}, usagef(cmd, "--id ID is missing")
	}
	ref, err := content.ParseRef(fmt.Sprintf("%s@%d", id, version))
	if err != nil {
		return content.Ref{}, usagef(cmd, "--id %q --version %d: %w", id, version, err)
	}
	return ref, nil
}

func createManifest(cmd *cobra.Command, o *createOptions, dir string) error {
	ref, err := contentRef(cmd, o.id, o.version)
	if err != nil {
		return err
	}
	if o.out == "" {
		return usagef(cmd, "-o FILE is missing")
	}
	m, h, err := hashDir(cmd, dir, blob.HashOptions{Ref: ref, Follow: o.follow})
	if err != nil {
		return err
	}
	b := content.AppendManifest(nil, m)
	if err := os.WriteFile(o.out, b, 0o644); err != nil {
		return err
	}
	if o.hashFile != "" {
		if err := os.WriteFile(o.hashFile, content.AppendHashFile(nil, h), 0o644); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), content.DigestOf(b))
	return err
}

// hashDir hashes a directory with a progress bar.
func hashDir(cmd *cobra.Command, dir string, o blob.HashOptions) (*content.Manifest, *content.HashFile, error) {
	bar := newBytesBar(cmd.ErrOrStderr(), "hash")
	defer bar.end()
	o.Progress = bar.set
	m, h, _, err := blob.HashTree(cmd.Context(), dir, o)
	return m, h, err
}

// loadManifest reads a manifest file; its bytes come too, since the digest is over them.
func loadManifest(path string) (*content.Manifest, []byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	m, err := content.ParseManifest(b)
	if err != nil {
		return nil, nil, fmt.Errorf("manifest %q: %w", path, err)
	}
	return m, b, nil
}

// manifestFacts is what "manifest show --json" prints.
type manifestFacts struct {
	ContentID      string              `json:"contentId"`
	Version        uint64              `json:"version"`
	ManifestDigest string              `json:"manifestDigest"`
	HashOfHashes   string              `json:"hashOfHashes"` // base64
	MetadataHash   string              `json:"metadataHash"` // by SHA-1; empty for a content without files, or without SHA-1
	Size           int64               `json:"size"`
	Pieces         int                 `json:"pieces"`
	Files          []manifestFileFacts `json:"files"`
}

type manifestFileFacts struct {
	Name       string `json:"name"`
	Size       int64  `json:"size"`
	SHA1       string `json:"sha1"`
	SHA256     string `json:"sha256"`
	Executable bool   `json:"executable"`
}

func newManifestShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show FILE", Short: "Show what a manifest says", Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return showManifest(cmd, args[0], asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func showManifest(cmd *cobra.Command, path string, asJSON bool) error {
	m, b, err := loadManifest(path)
	if err != nil {
		return err
	}
	facts := manifestFacts{
		ContentID: string(m.Ref.ID), Version: m.Ref.Version, ManifestDigest: content.DigestOf(b).String(),
		HashOfHashes: m.HashOfHashes.Base64(), Size: m.Size, Pieces: m.Pieces(), Files: []manifestFileFacts{},
	}
	d, err := m.MetadataHash(content.SHA1Algorithm)
	switch {
	case err == nil:
		facts.MetadataHash = d.String()
	case !errors.Is(err, content.ErrUnknownMetadata) && !errors.Is(err, content.ErrNoHash):
		return err
	}
	for _, f := range m.Files {
		facts.Files = append(facts.Files, manifestFileFacts{f.Name, f.Size, f.SHA1.String(), f.SHA256.String(), f.Executable})
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), facts)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "content        %s\nmanifest       %s\nHashOfHashes   %s\nMetadataHash   %s (SHA-1)\nsize           %d bytes in %d files, %d pieces\n\n",
		m.Ref, facts.ManifestDigest, m.HashOfHashes, facts.MetadataHash, m.Size, len(m.Files), facts.Pieces)
	if err != nil {
		return err
	}
	rows := [][]string{{"SIZE", "SHA-256", "X", "NAME"}}
	for _, f := range m.Files {
		x := ""
		if f.Executable {
			x = "x"
		}
		rows = append(rows, []string{fmt.Sprint(f.Size), f.SHA256.String(), x, f.Name})
	}
	return printTable(cmd.OutOrStdout(), rows)
}

func newManifestVerifyCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "verify FILE DIR", Short: "Check every file of a directory against a manifest", Args: takes(2, 2),
		Long: `Hash every file of a directory and compare it with a manifest. Each file that is missing,
extra or changed is printed; if there is one, the exit status is 1.`,
		RunE: func(cmd *cobra.Command, args []string) error { return verifyManifest(cmd, args[0], args[1], follow) },
	}
	cmd.Flags().BoolVar(&follow, "follow", false, "take what links point to")
	return cmd
}

func verifyManifest(cmd *cobra.Command, path, dir string, follow bool) error {
	want, b, err := loadManifest(path)
	if err != nil {
		return err
	}
	got, _, err := hashDir(cmd, dir, blob.HashOptions{Ref: want.Ref, Follow: follow})
	if err != nil {
		return err
	}
	diff := content.CompareManifests(want, got)
	for _, d := range diff {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%-8s %q\n", d.Kind, d.Name); err != nil {
			return err
		}
	}
	if len(diff) > 0 {
		return fmt.Errorf("%q is not %s of manifest %s: %d files differ", dir, want.Ref, content.DigestOf(b).Short(), len(diff))
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "ok: %d files, %d bytes\n", len(want.Files), want.Size)
	return err
}

// hashOptions are the flags of "freshet manifest hash".
type hashOptions struct {
	expect    string
	algorithm string
}

func newManifestHashCommand() *cobra.Command {
	var o hashOptions
	cmd := &cobra.Command{
		Use: "hash [FILE]", Short: "Print the MetadataHash of a manifest or of expected metadata", Args: takes(0, 1),
		Long: `Print the MetadataHash, in hex: of a manifest's files by --algorithm, or with --expect of
the <Content> document in a file, by the algorithms that it names. A content and its metadata
are compared by the same algorithm. A file with several documents gives a line each, with
their contents.`,
		Example: `  freshet manifest hash tools.manifest
  freshet manifest hash --expect metadata.xml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 0) == (o.expect == "") {
				return usagef(cmd, "give either a manifest's FILE or --expect FILE")
			}
			if o.expect != "" {
				return hashExpected(cmd, o.expect)
			}
			return hashManifest(cmd, args[0], o.algorithm)
		},
	}
	cmd.Flags().StringVar(&o.expect, "expect", "", "file with a management system's <Content> document")
	cmd.Flags().StringVar(&o.algorithm, "algorithm", "sha1", "hashes to take of a manifest: sha1, as most metadata has, or sha256")
	return cmd
}

func hashManifest(cmd *cobra.Command, path, algorithm string) error {
	alg, err := content.ParseAlgorithm(strings.ToUpper(algorithm))
	if err != nil {
		return usagef(cmd, "--algorithm %q is not sha1 or sha256", algorithm)
	}
	m, _, err := loadManifest(path)
	if err != nil {
		return err
	}
	d, err := m.MetadataHash(alg)
	if err != nil {
		return fmt.Errorf("manifest %q: %w", path, err)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), d)
	return err
}

func hashExpected(cmd *cobra.Command, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	contents, err := expected.Parse(f)
	if err != nil {
		return fmt.Errorf("metadata %q: %w", path, err)
	}
	for _, c := range contents {
		d, err := c.MetadataHash()
		if err != nil {
			return fmt.Errorf("metadata %q: %w", path, err)
		}
		line := d.String()
		if len(contents) > 1 {
			line += "  " + c.Ref.String()
		}
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), line); err != nil {
			return err
		}
	}
	return nil
}
