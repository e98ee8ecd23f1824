package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"freshet/internal/content"
	"freshet/internal/expected"
)

// diffRows bounds the table of "freshet manifest diff"; --json has all.
const diffRows = 200

// diffOptions are the flags of "freshet manifest diff".
type diffOptions struct {
	match string
	json  bool
}

func newManifestDiffCommand() *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use: "diff WANT GOT", Short: "Compare a manifest with another one, or with expected metadata", Args: takes(2, 2),
		Long: `Compare two manifests, or a manifest with the <Content> document in a file, in either order.
Metadata says what the files must be; of two manifests the first one does, sizes and
executable marks included. Metadata is compared by the hashes that it names: a file is
"unhashed" when the manifest has none by that algorithm, and then only its bytes can tell.
Exit status 1 when they do not agree.`,
		Example: `  freshet manifest diff tools-3.manifest tools-4.manifest
  freshet manifest diff --match subset metadata.xml tools.manifest`,
		RunE: func(cmd *cobra.Command, args []string) error {
			match, err := content.ParseMatch(o.match)
			if err != nil {
				return usagef(cmd, "--match %q is not exact or subset", o.match)
			}
			return diffManifests(cmd, args, match, o.json)
		},
	}
	cmd.Flags().StringVar(&o.match, "match", "exact", "exact, or subset: the manifest may hold more files than the metadata")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// diffFacts is what "manifest diff --json" prints.
type diffFacts struct {
	Fit         string           `json:"fit"` // fits, differs, needs the bytes
	Match       string           `json:"match"`
	Differences []differenceFact `json:"differences"`
}

type differenceFact struct {
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	Algorithm string `json:"algorithm"`
	Want      string `json:"want,omitempty"` // hex
	Got       string `json:"got,omitempty"`
}

func diffManifests(cmd *cobra.Command, paths []string, match content.Match, asJSON bool) error {
	diff, err := compareFiles(paths[0], paths[1], match)
	if err != nil {
		return err
	}
	if asJSON {
		err = printDiffJSON(cmd, diff, match)
	} else {
		err = printDiff(cmd, diff)
	}
	if err != nil || len(diff) == 0 {
		return err
	}
	return fmt.Errorf("%q and %q do not agree: %s", paths[0], paths[1], diff.Summary(0))
}

// compareFiles compares two files of which at least one is a manifest.
func compareFiles(want, got string, match content.Match) (content.Diff, error) {
	wantIs, err := isManifest(want)
	if err != nil {
		return nil, err
	}
	gotIs, err := isManifest(got)
	if err != nil {
		return nil, err
	}
	switch {
	case wantIs && gotIs && match == content.Exact:
		return compareTwo(want, got)
	case wantIs && gotIs:
		return nil, fmt.Errorf("%q and %q are both manifests: --match subset is for metadata", want, got)
	case gotIs:
		return compareExpected(want, got, match)
	case wantIs:
		return compareExpected(got, want, match)
	}
	return nil, fmt.Errorf("neither %q nor %q is a manifest, which begins with {", want, got)
}

func compareTwo(want, got string) (content.Diff, error) {
	w, _, err := loadManifest(want)
	if err != nil {
		return nil, err
	}
	g, _, err := loadManifest(got)
	if err != nil {
		return nil, err
	}
	return content.CompareManifests(w, g), nil
}

func compareExpected(metadata, manifest string, match content.Match) (content.Diff, error) {
	m, _, err := loadManifest(manifest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(metadata)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := expected.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("metadata %q: %w", metadata, err)
	}
	for _, c := range all {
		if c.Ref == m.Ref {
			return content.Compare(m, c.Entries(), match)
		}
	}
	return nil, fmt.Errorf("metadata %q says nothing of %s, which manifest %q is of; its first content is %s", metadata, m.Ref, manifest, all[0].Ref)
}

// isManifest tells a manifest from metadata by its first byte.
func isManifest(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	first := make([]byte, 1)
	n, _ := f.Read(first) // what cannot be read is refused by whoever reads it whole
	return bytes.Equal(first[:n], []byte("{")), nil
}

func printDiffJSON(cmd *cobra.Command, diff content.Diff, match content.Match) error {
	facts := diffFacts{Fit: diff.Fit().String(), Match: match.String(), Differences: []differenceFact{}}
	for _, d := range diff {
		facts.Differences = append(facts.Differences, differenceFact{
			Kind: d.Kind.String(), Name: d.Name, Algorithm: d.Algorithm.String(),
			Want: hex.EncodeToString(d.Want), Got: hex.EncodeToString(d.Got),
		})
	}
	return printJSON(cmd.OutOrStdout(), facts)
}

func printDiff(cmd *cobra.Command, diff content.Diff) error {
	if len(diff) == 0 {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "ok: no file differs")
		return err
	}
	rows := [][]string{{"FILE IS", "HASH", "WANT", "GOT", "NAME"}}
	for _, d := range diff[:min(len(diff), diffRows)] {
		rows = append(rows, []string{d.Kind.String(), d.Algorithm.String(), shortHex(d.Want), shortHex(d.Got), strconv.Quote(d.Name)})
	}
	if err := printTable(cmd.OutOrStdout(), rows); err != nil {
		return err
	}
	if more := len(diff) - diffRows; more > 0 {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "… and %d more; --json shows all\n", more)
		return err
	}
	return nil
}

// shortHex shows the beginning of a hash.
func shortHex(digest []byte) string {
	if len(digest) == 0 {
		return "-"
	}
	return hex.EncodeToString(digest[:min(len(digest), 6)])
}
