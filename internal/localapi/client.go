package localapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"freshet/internal/agent"
	"freshet/internal/policy"
)

// Client calls the agent at a socket.
type Client struct{ Path string }

// Get asks for a content into dir. progress is called for each line of progress. The error
// is ErrGone when the agent stopped meanwhile: the call may be made again.
func (c Client) Get(ctx context.Context, call Call, dir *os.File, progress func(agent.Progress)) error {
	call.Op, call.Path, call.Expect = opGet, dir.Name(), int64(len(call.Metadata))
	_, err := c.call(ctx, call, dir, progress)
	return err
}

// Status asks what the agent has and does.
func (c Client) Status(ctx context.Context) ([]agent.Status, error) {
	r, err := c.call(ctx, Call{Op: opStatus}, nil, nil)
	return r.Status, err
}

// Traffic asks with whom the agent exchanged bytes.
func (c Client) Traffic(ctx context.Context) ([]agent.Traffic, error) {
	r, err := c.call(ctx, Call{Op: opTraffic}, nil, nil)
	return r.Traffic, err
}

// LAN asks what became of the datagrams of the subnet.
func (c Client) LAN(ctx context.Context) (agent.LAN, error) {
	r, err := c.call(ctx, Call{Op: opLAN}, nil, nil)
	if err != nil || r.LAN == nil {
		return agent.LAN{}, err
	}
	return *r.LAN, nil
}

// Config asks for the agent's settings.
func (c Client) Config(ctx context.Context) ([]policy.Shown, error) {
	r, err := c.call(ctx, Call{Op: opConfig}, nil, nil)
	return r.Config, err
}

// absentError says that no agent listens. It is an ErrGone.
type absentError struct {
	path string
	err  error
}

func (e *absentError) Error() string {
	return fmt.Sprintf("no agent answers at %q: %v; is \"freshet agent\" running, and is this its socket?", e.path, e.err)
}

func (e *absentError) Unwrap() error        { return e.err }
func (e *absentError) Is(target error) bool { return target == ErrGone }

// call makes one call and returns its last line.
func (c Client) call(ctx context.Context, call Call, dir *os.File, progress func(agent.Progress)) (Reply, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.Path)
	if err != nil {
		return Reply{}, &absentError{c.Path, err}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := send(conn.(*net.UnixConn), call, dir); err != nil {
		return Reply{}, fmt.Errorf("localapi: %w: %w", ErrGone, err)
	}
	r := bufio.NewReaderSize(conn, maxLine)
	var all Reply // of what comes in several lines
	for {
		var reply Reply
		if err := readLine(r, &reply); err != nil {
			if ctx.Err() != nil {
				return Reply{}, context.Cause(ctx)
			}
			var op *net.OpError
			if err == io.EOF || errors.As(err, &op) {
				err = ErrGone
			}
			return Reply{}, err
		}
		all.Status = append(all.Status, reply.Status...)
		all.Traffic = append(all.Traffic, reply.Traffic...)
		switch {
		case reply.Error != "":
			return Reply{}, errors.New(reply.Error)
		case reply.Progress != nil && progress != nil:
			progress(*reply.Progress)
		case reply.Done:
			reply.Status, reply.Traffic = all.Status, all.Traffic
			return reply, nil
		}
	}
}
