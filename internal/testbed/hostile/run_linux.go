package hostile

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"freshet/internal/content"
)

// options are those of a program.
type options struct {
	join    string // file of the join token
	state   string // directory
	content string // ID@VERSION; empty: none
	period  time.Duration
	log     *slog.Logger
}

// Run runs a program: its name, then its flags. It returns when its time is over, or ctx is.
func Run(ctx context.Context, args []string, out io.Writer) error {
	programs := map[string]func(context.Context, options) error{
		"flood": flood, "member": misuse, "liar": lie, "deaf": ignore, "taste": taste,
	}
	if len(args) == 0 || programs[args[0]] == nil {
		return fmt.Errorf("hostile: no program %q", args)
	}
	opt := options{log: slog.New(slog.NewTextHandler(out, nil))}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&opt.join, "join", "", "file of the join token")
	f.StringVar(&opt.state, "state", "", "directory of its own")
	f.StringVar(&opt.content, "content", "", "ID@VERSION")
	f.DurationVar(&opt.period, "for", 0, "how long; 0: until it is ended")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if opt.period > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opt.period+enlistTime)
		defer cancel()
	}
	err := programs[args[0]](ctx, opt)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// doneMessage begins the line with which a program tells what it has done.
const doneMessage = "done"

// enlistTime is what a program may take before it begins.
const enlistTime = 30 * time.Second

// begin says that the program is ready, and returns the context of its time.
func (o *options) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := os.WriteFile(filepath.Join(o.state, "ready"), []byte("ready\n"), 0o644); err != nil {
		return nil, nil, fmt.Errorf("hostile: %w", err)
	}
	if o.period == 0 {
		ctx, cancel := context.WithCancel(ctx)
		return ctx, cancel, nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.period)
	return ctx, cancel, nil
}

// ref is the content that the program is about.
func (o *options) ref() (content.Ref, error) {
	ref, err := content.ParseRef(o.content)
	if err == nil && ref.Version == 0 {
		err = fmt.Errorf("hostile: %q names no version", o.content)
	}
	return ref, err
}
