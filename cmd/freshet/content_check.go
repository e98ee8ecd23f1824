package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/expected"
	"freshet/internal/freshness"
)

// checkOptions are the flags of "freshet content check".
type checkOptions struct {
	expect string
	match  string
}

// checkFact is what "content check --json" prints of a distribution point.
type checkFact struct {
	ContentID  string `json:"contentId"`
	Version    uint64 `json:"version"`
	Origin     string `json:"origin"`
	Outcome    string `json:"outcome"` // api.LszFits, LszDiffers or LszStale; freshness.OriginUnavailable: it did not say
	Manifest   string `json:"manifestDigest,omitempty"`
	Generation int64  `json:"generation,omitempty"`
	Anew       bool   `json:"madeAnew"` // the catalog had another manifest before
	Detail     string `json:"detail,omitempty"`
}

func newContentCheckCommand(o *adminOptions) *cobra.Command {
	var k checkOptions
	cmd := &cobra.Command{
		Use: "check ID[@VERSION]", Short: "Have the distribution points make sure of a content", Args: takes(1, 1),
		Long: `Have each distribution point of a content look whether its files are still those of its
manifest. What changed is read again and registered. With --expect its manifest is compared
with a management system's <Content> document, and where it does not fit all bytes are read
again, as when a device asks.

  fits            its manifest is the catalog's, and has the expected files; made anew: since now
  origin-differs  its files fit, and the catalog names others: publish them
  origin-stale    its files are not what is expected: bring them there, or correct the metadata

The exit status is 1 where one of them does not fit. Without a version the newest is meant.`,
		Example: `  freshet content check tools@3 --expect metadata.xml --token admin.token`,
		RunE:    func(cmd *cobra.Command, args []string) error { return checkContent(cmd, o, &k, args[0]) },
	}
	cmd.Flags().StringVar(&k.expect, "expect", "", "file with what the files must be: a <Content> document")
	cmd.Flags().StringVar(&k.match, "match", content.Exact.String(), "with --expect: exact, or subset where the content may hold more")
	return cmd
}

func checkContent(cmd *cobra.Command, o *adminOptions, k *checkOptions, name string) error {
	var match content.Match
	ref, err := content.ParseRef(name)
	if err == nil {
		match, err = content.ParseMatch(k.match)
	}
	switch {
	case err != nil:
		return usagef(cmd, "%v", err)
	case k.expect == "" && cmd.Flags().Changed("match"):
		return usagef(cmd, "--match is about the metadata of --expect")
	}
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	all, err := contentsOf(cmd, c, ref)
	if err != nil {
		return err
	}
	known := all[len(all)-1]
	ref.Version = known.Version
	if len(known.Origins) == 0 {
		return fmt.Errorf("content %q has no distribution point to ask", ref)
	}
	q, err := k.question(ref, match)
	if err != nil {
		return err
	}
	var facts []checkFact
	for _, at := range known.Origins {
		facts = append(facts, askOrigin(cmd, c, at, &known, q))
	}
	return o.showChecks(cmd, ref, facts)
}

// question returns what the distribution points are asked.
func (k *checkOptions) question(ref content.Ref, match content.Match) (api.LszRequest, error) {
	if k.expect == "" {
		return api.LszRequest{}, nil
	}
	f, err := os.Open(k.expect)
	if err != nil {
		return api.LszRequest{}, err
	}
	defer f.Close()
	all, err := expected.Parse(f)
	if err != nil {
		return api.LszRequest{}, fmt.Errorf("%s: %w", k.expect, err)
	}
	for _, c := range all {
		if c.Ref == ref {
			return c.Question(match), nil
		}
	}
	return api.LszRequest{}, fmt.Errorf("%s says nothing of %s", k.expect, ref)
}

// askOrigin has one distribution point make sure, and shows how far it reads.
func askOrigin(cmd *cobra.Command, c *client.Client, at string, known *api.Content, q api.LszRequest) checkFact {
	fact := checkFact{ContentID: known.ContentId, Version: known.Version, Origin: at}
	bar := newBytesBar(cmd.ErrOrStderr(), "read")
	defer bar.end()
	r, err := c.MakeSure(cmd.Context(), at, content.Ref{ID: content.ID(known.ContentId), Version: known.Version}, q, bar.set)
	var stale *client.OriginStale
	switch {
	case errors.As(err, &stale):
		fact.Outcome, fact.Detail = api.LszStale, stale.Problem.Detail
	case err != nil:
		fact.Outcome, fact.Detail = freshness.OriginUnavailable.String(), err.Error()
	default:
		fact.Outcome, fact.Manifest, fact.Generation = r.Outcome, r.ManifestDigest, r.Generation
		fact.Anew = r.Outcome == api.LszFits && r.ManifestDigest != known.ManifestDigest
	}
	return fact
}

// showChecks prints what the distribution points say; it is an error where one does not fit.
func (o *adminOptions) showChecks(cmd *cobra.Command, ref content.Ref, facts []checkFact) error {
	var rows [][]string
	unfit := 0
	for _, f := range facts {
		row := []string{f.Origin, f.Outcome, "-", "-", f.Detail}
		if f.Anew {
			row[1] += ", made anew"
		}
		if f.Manifest != "" {
			row[2] = f.Manifest[:12]
		}
		if f.Generation != 0 {
			row[3] = strconv.FormatInt(f.Generation, 10)
		}
		if f.Outcome != api.LszFits {
			unfit++
		}
		rows = append(rows, row)
	}
	if err := o.show(cmd, facts, []string{"ORIGIN", "OUTCOME", "MANIFEST", "GENERATION", "DETAIL"}, rows); err != nil {
		return err
	}
	if unfit > 0 {
		return fmt.Errorf("content %q does not fit at %d of %s", ref, unfit, count(len(facts), "distribution point"))
	}
	return nil
}
