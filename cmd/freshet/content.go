package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/identity"
)

// contentOptions are the flags of "freshet content add".
type contentOptions struct {
	origins, groups, urls []string
	replaces              string
}

func newContentCommand() *cobra.Command {
	var o adminOptions
	var a contentOptions
	list := &cobra.Command{
		Use: "list", Short: "List what is published", Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return listContents(cmd, &o) },
	}
	add := &cobra.Command{
		Use: "add MANIFEST HASHFILE", Short: "Register a content whose bytes a distribution point has", Args: takes(2, 2),
		Long: `Register a content by its manifest and its hash file (JSON), as "freshet manifest create"
makes them, whose bytes the distribution points at --origin serve already. "freshet publish"
does all of it at once.`,
		RunE: func(cmd *cobra.Command, args []string) error { return addContent(cmd, &o, &a, args[0], args[1]) },
	}
	add.Flags().StringSliceVar(&a.origins, "origin", nil, "base URL of a distribution point, https://HOST:PORT")
	add.Flags().StringSliceVar(&a.groups, "group", nil, "group that may read it (default: all)")
	add.Flags().StringVar(&a.replaces, "replaces", "", "manifest digest that must be the current one")
	add.Flags().StringArrayVar(&a.urls, "url", nil, "URL that it is known by besides its id; may be given several times")
	show := &cobra.Command{
		Use: "show ID[@VERSION]", Short: "Show all that is known of a content", Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return showContents(cmd, &o, args[0]) },
	}
	var urls []string
	set := &cobra.Command{
		Use: "set ID@VERSION --url URL", Short: "Change the URLs that a content is known by", Args: takes(1, 1),
		Long: `Make the URLs given, and no others, those that this version of a content is known by. One
empty URL, --url "", takes all of them from it.`,
		RunE: func(cmd *cobra.Command, args []string) error { return setContent(cmd, &o, args[0], urls) },
	}
	set.Flags().StringArrayVar(&urls, "url", nil, "URL, http or https; may be given several times")
	rm := &cobra.Command{
		Use: "rm ID@VERSION", Short: "Recall a content", Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return recallContent(cmd, &o, args[0]) },
	}
	cmd := group(&cobra.Command{Use: "content", Short: "Administer what is published"}, list, show, newContentCheckCommand(&o), add, set, rm)
	o.flags(cmd)
	return cmd
}

func listContents(cmd *cobra.Command, o *adminOptions) error {
	c, err := o.client(cmd, identity.TokenPublish)
	if err != nil {
		return err
	}
	contents, err := c.Contents(cmd.Context())
	if err != nil {
		return err
	}
	var rows [][]string
	for _, c := range contents {
		rows = append(rows, []string{
			c.ContentId, strconv.FormatUint(c.Version, 10), bytesText(c.Size), strconv.Itoa(c.Files), orAll(c.Groups, "all"),
			strconv.FormatInt(c.Generation, 10), c.ManifestDigest[:12], strconv.Itoa(c.Differs), orAll(c.Origins, "-"), orAll(c.URLs, "-"),
		})
	}
	return o.show(cmd, contents, []string{"ID", "VERSION", "SIZE", "FILES", "GROUPS", "GENERATION", "MANIFEST", "DIFFERS", "ORIGINS", "URLS"}, rows)
}

// shownContent is what "content show --json" prints of a version.
type shownContent struct {
	api.Content
	Reports []api.ExpectedDiffers `json:"differs"` // of devices that expect other files
}

// contentsOf returns a content's versions, the newest last, or one of them.
func contentsOf(cmd *cobra.Command, c *client.Client, ref content.Ref) ([]api.Content, error) {
	all, err := c.Contents(cmd.Context())
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(c api.Content) bool {
		return c.ContentId != string(ref.ID) || ref.Version != 0 && c.Version != ref.Version
	})
	if len(all) == 0 {
		return nil, fmt.Errorf("there is no content %q: \"freshet content list\" shows what there is", ref)
	}
	return all, nil
}

// showContents shows a content's versions, or one of them, a fact a line.
func showContents(cmd *cobra.Command, o *adminOptions, name string) error {
	ref, err := content.ParseRef(name)
	if err != nil {
		return usagef(cmd, "%v", err)
	}
	c, err := o.client(cmd, identity.TokenPublish)
	if err != nil {
		return err
	}
	all, err := contentsOf(cmd, c, ref)
	if err != nil {
		return err
	}
	var rows [][]string
	var shown []shownContent
	for _, v := range all {
		reports, err := c.Differs(cmd.Context(), content.Ref{ID: ref.ID, Version: v.Version})
		if err != nil {
			return err
		}
		shown = append(shown, shownContent{v, reports})
		rows = append(rows, contentFacts(&v, reports)...)
	}
	return o.show(cmd, shown, []string{"FACT", "VALUE"}, rows)
}

// contentFacts returns what is known of a version, a fact a row.
func contentFacts(c *api.Content, reports []api.ExpectedDiffers) [][]string {
	rows := [][]string{
		{"content", fmt.Sprintf("%s@%d", c.ContentId, c.Version)}, {"generation", strconv.FormatInt(c.Generation, 10)},
		{"published", day(c.Published)}, {"manifest", c.ManifestDigest}, {"hashOfHashes", c.HashOfHashes},
		{"size", bytesText(c.Size)}, {"files", strconv.Itoa(c.Files)}, {"groups", orAll(c.Groups, "all")},
		{"origins", orAll(c.Origins, "-")}, {"urls", orAll(c.URLs, "-")},
		{"differs", count(len(reports), "device")},
	}
	for _, r := range reports {
		rows = append(rows, []string{"", fmt.Sprintf("%s, %s: %s", r.Device, day(r.At), r.Summary)})
	}
	return rows
}

// setContent changes a version's URLs.
func setContent(cmd *cobra.Command, o *adminOptions, name string, urls []string) error {
	ref, err := content.ParseRef(name)
	if err == nil && ref.Version == 0 {
		err = fmt.Errorf("%q has no version: write ID@VERSION", name)
	}
	switch {
	case err != nil:
		return usagef(cmd, "%v", err)
	case len(urls) == 0:
		return usagef(cmd, "--url URL is missing; --url \"\" takes all URLs from %s", ref)
	case len(urls) == 1 && urls[0] == "":
		urls = []string{}
	}
	if err := checkURLs(cmd, urls); err != nil {
		return err
	}
	c, err := o.client(cmd, identity.TokenPublish)
	if err != nil {
		return err
	}
	made, err := c.SetURLs(cmd.Context(), ref, urls)
	if err != nil {
		return err
	}
	return o.say(cmd, made, "content %s is known by %s", ref, orAll(made.URLs, "its id alone"))
}

func addContent(cmd *cobra.Command, o *adminOptions, a *contentOptions, manifest, hashFile string) error {
	if len(a.origins) == 0 {
		return usagef(cmd, "--origin URL is missing: where are the bytes?")
	}
	if err := checkURLs(cmd, a.urls); err != nil {
		return err
	}
	req := api.PublishRequest{Origins: a.origins, Groups: a.groups, Replaces: a.replaces}
	var err error
	if req.Manifest, err = os.ReadFile(manifest); err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	b, err := os.ReadFile(hashFile)
	if err != nil {
		return fmt.Errorf("read hash file: %w", err)
	}
	h, err := content.ParseHashFile(b)
	if err != nil {
		return fmt.Errorf("hash file %q: %w", hashFile, err)
	}
	req.HashFile = content.AppendHashFileRaw(nil, h)
	c, err := o.client(cmd, identity.TokenPublish)
	if err != nil {
		return err
	}
	made, err := c.Publish(cmd.Context(), req)
	if err != nil {
		return err
	}
	ref := content.Ref{ID: content.ID(made.ContentId), Version: made.Version}
	urls, err := setURLs(cmd, c, ref, a.urls)
	if err != nil {
		return fmt.Errorf("%s is registered, but not under its URLs: %w", ref, err)
	}
	if urls != nil {
		made.URLs = urls
	}
	return o.say(cmd, made, "%s", made.ManifestDigest)
}

func recallContent(cmd *cobra.Command, o *adminOptions, name string) error {
	ref, err := content.ParseRef(name)
	if err != nil {
		return err
	}
	if ref.Version == 0 {
		return usagef(cmd, "%q has no version: write ID@VERSION", name)
	}
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	if err := c.Recall(cmd.Context(), ref); err != nil {
		return err
	}
	return o.say(cmd, map[string]any{"contentId": ref.ID, "version": ref.Version}, "content %s is recalled", ref)
}
