package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/identity"
)

// contentOptions are the flags of "freshet content add".
type contentOptions struct {
	origins, groups []string
	replaces        string
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
	rm := &cobra.Command{
		Use: "rm ID@VERSION", Short: "Recall a content", Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return recallContent(cmd, &o, args[0]) },
	}
	cmd := group(&cobra.Command{Use: "content", Short: "Administer what is published"}, list, add, rm)
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
			strconv.FormatInt(c.Generation, 10), c.ManifestDigest[:12], orAll(c.Origins, "-"),
		})
	}
	return o.show(cmd, contents, []string{"ID", "VERSION", "SIZE", "FILES", "GROUPS", "GENERATION", "MANIFEST", "ORIGINS"}, rows)
}

func addContent(cmd *cobra.Command, o *adminOptions, a *contentOptions, manifest, hashFile string) error {
	if len(a.origins) == 0 {
		return usagef(cmd, "--origin URL is missing: where are the bytes?")
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
