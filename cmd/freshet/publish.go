package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"freshet/internal/api"
	"freshet/internal/blob"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/origin"
	"freshet/internal/web"
)

// publishOptions are the flags of "freshet publish".
type publishOptions struct {
	id      string
	version uint64
	token   string
	to      string
	groups  []string
	urls    []string
	sign    string
	expires time.Duration
	inPlace bool
	follow  bool
	json    bool
}

func newPublishCommand() *cobra.Command {
	var o publishOptions
	cmd := &cobra.Command{
		Use: "publish DIR --id ID --token FILE", Short: "Publish a directory to the fleet", Args: takes(1, 1),
		Long: `Hash a directory, bring its files to a distribution point, and register the content with
the server. The distribution point hashes the files again: only when its manifest is the same
they are served. An upload that was broken off goes on where it was. The manifest digest is
printed.

With --url devices get the content by that URL too. Of several versions that have it, the
newest answers; no other content may have it. Without --url a version keeps the URLs it has.

With --sign the manifest is signed with a minisign secret key: with the setting publisherKeys
devices believe it then although no server answers, and no other manifest. The password of an
encrypted key is asked for, or taken from the environment, ` + passwordEnv + `.`,
		Example: `  freshet publish ./tools --id tools --version 3 --token publish.token --to https://dp.example:7444
  freshet publish /srv/content/tools/3 --id tools --version 3 --token publish.token --in-place
  freshet publish ./tools --id tools --version 3 --token publish.token --sign minisign.key`,
		RunE: func(cmd *cobra.Command, args []string) error { return publish(cmd, &o, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.id, "id", "", "content id")
	f.Uint64Var(&o.version, "version", 1, "version, from 1")
	f.StringVar(&o.token, "token", "", "token file, such as STATE/publish.token of the server")
	f.StringVar(&o.to, "to", "", "URL of the distribution point (default: the only one that the server knows contents of)")
	f.StringSliceVar(&o.groups, "group", nil, "group that may read it (default: all)")
	f.StringArrayVar(&o.urls, "url", nil, "URL that the content is known by besides its id, http or https; may be given several times")
	f.StringVar(&o.sign, "sign", "", "file of the minisign secret key to sign with")
	f.DurationVar(&o.expires, "sign-expires", signatureLife, "how long the signature is good, with --sign")
	f.BoolVar(&o.inPlace, "in-place", false, "upload nothing: the distribution point sees the same files in its own directory")
	f.BoolVar(&o.follow, "follow", false, "upload what links point to")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// published is what "publish --json" prints.
type published struct {
	ContentID string   `json:"contentId"`
	Version   uint64   `json:"version"`
	Origin    string   `json:"origin"`
	URLs      []string `json:"urls,omitempty"`
	*origin.Result
}

func publish(cmd *cobra.Command, o *publishOptions, dir string) error {
	ref, err := contentRef(cmd, o.id, o.version)
	if err != nil {
		return err
	}
	if o.inPlace && o.follow {
		return usagef(cmd, "--follow and --in-place exclude each other: a distribution point follows no links")
	}
	if o.expires <= 0 {
		return usagef(cmd, "--sign-expires %v is not in the future", o.expires)
	}
	if err := checkURLs(cmd, o.urls); err != nil {
		return err
	}
	admin := adminOptions{token: o.token}
	services, err := admin.client(cmd, identity.TokenPublish)
	if err != nil {
		return err
	}
	defer services.CloseIdle()
	if o.to == "" {
		if o.to, err = onlyOrigin(cmd.Context(), services); err != nil {
			return err
		}
	}
	m, _, err := hashDir(cmd, dir, blob.HashOptions{Ref: ref, Follow: o.follow})
	if err != nil {
		return err
	}
	p, err := newPublisher(cmd, services, o, m)
	if err != nil {
		return err
	}
	defer p.HTTP.CloseIdleConnections()
	r, err := bring(cmd, o, p, dir)
	if err != nil {
		return err
	}
	urls, err := setURLs(cmd, services, ref, o.urls)
	if err != nil {
		return fmt.Errorf("%s is published, but not under its URLs: %w", ref, err)
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), published{string(ref.ID), ref.Version, o.to, urls, r})
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "published %s at %s: %d files, %s, generation %d\n", ref, o.to, r.Files, bytesText(r.Size), r.Generation)
	_, err = fmt.Fprintln(cmd.OutOrStdout(), r.ManifestDigest)
	return err
}

// checkURLs finds wrong URLs before anything is hashed.
func checkURLs(cmd *cobra.Command, urls []string) error {
	for _, u := range urls {
		if _, err := api.NormalURL(u); err != nil {
			return usagef(cmd, "--url: %v", err)
		}
	}
	return nil
}

// setURLs registers URLs, where there are any, and returns them as the server has them.
func setURLs(cmd *cobra.Command, services *client.Client, ref content.Ref, urls []string) ([]string, error) {
	if len(urls) == 0 {
		return nil, nil
	}
	c, err := services.SetURLs(cmd.Context(), ref, urls)
	return c.URLs, err
}

// onlyOrigin returns the one distribution point that the server knows of.
func onlyOrigin(ctx context.Context, services *client.Client) (string, error) {
	contents, err := services.Contents(ctx)
	if err != nil {
		return "", err
	}
	var all []string
	for _, c := range contents {
		all = append(all, c.Origins...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	switch len(all) {
	case 0:
		return "", fmt.Errorf("publish: the server knows contents of no distribution point yet: name one with --to URL")
	case 1:
		return all[0], nil
	default:
		return "", fmt.Errorf("publish: there are %d distribution points: name one with --to URL: %s", len(all), strings.Join(all, " "))
	}
}

// newPublisher signs the manifest, where that is asked for, and gets a ticket for the content.
func newPublisher(cmd *cobra.Command, services *client.Client, o *publishOptions, m *content.Manifest) (*origin.Publisher, error) {
	token, err := identity.ReadToken(o.token)
	if err != nil {
		return nil, err
	}
	trust, err := identity.BearerConfig(token, identity.RoleOrigin)
	if err != nil {
		return nil, err
	}
	var sig []byte
	if o.sign != "" {
		if sig, err = signManifest(cmd, services, o, m); err != nil {
			return nil, err
		}
	}
	ticket, err := services.Ticket(cmd.Context(), api.TicketRequest{ContentId: string(m.Ref.ID), Version: m.Ref.Version, Groups: o.groups, Urls: o.urls})
	if err != nil {
		return nil, err
	}
	c := web.Client(trust, netip.Addr{})
	return &origin.Publisher{HTTP: c, Base: o.to, Ticket: ticket, Manifest: m, Signature: sig}, nil
}

// bring uploads what is missing and has the distribution point publish.
func bring(cmd *cobra.Command, o *publishOptions, p *origin.Publisher, dir string) (*origin.Result, error) {
	from := origin.FromPlace
	if !o.inPlace {
		from = origin.FromUpload
		if err := uploadMissing(cmd, o, p, dir); err != nil {
			return nil, err
		}
	}
	bar := newBytesBar(cmd.ErrOrStderr(), "check")
	defer bar.end()
	return p.Publish(cmd.Context(), from, bar.set)
}

func uploadMissing(cmd *cobra.Command, o *publishOptions, p *origin.Publisher, dir string) error {
	missing, err := p.Begin(cmd.Context())
	if err != nil || len(missing) == 0 {
		return err
	}
	d, err := blob.OpenDir(dir, o.follow)
	if err != nil {
		return err
	}
	defer d.Close()
	var total int64
	for _, i := range missing {
		total += p.Manifest.Files[i].Size
	}
	bar := newBytesBar(cmd.ErrOrStderr(), "upload")
	defer bar.end()
	var done atomic.Int64
	return p.Upload(cmd.Context(), d, missing, func(n int64) { bar.set(done.Add(n), total) })
}

// bytesBar is a progress bar on a terminal, and nothing elsewhere.
type bytesBar struct {
	all *mpb.Progress
	bar *mpb.Bar
}

func newBytesBar(w io.Writer, what string) *bytesBar {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return &bytesBar{}
	}
	all := mpb.New(mpb.WithOutput(w), mpb.WithRefreshRate(100*time.Millisecond))
	bar := all.AddBar(0,
		mpb.PrependDecorators(decor.Name(what+" ", decor.WC{W: 9, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f")),
		mpb.BarRemoveOnComplete())
	return &bytesBar{all, bar}
}

// set shows done of total bytes.
func (b *bytesBar) set(done, total int64) {
	if b.bar != nil {
		b.bar.SetTotal(total, false)
		b.bar.SetCurrent(done)
	}
}

// end removes the bar.
func (b *bytesBar) end() {
	if b.bar != nil {
		b.bar.Abort(true)
		b.all.Wait()
	}
}
