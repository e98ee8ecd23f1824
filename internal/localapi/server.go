package localapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"freshet/internal/agent"
	"freshet/internal/content"
	"freshet/internal/policy"
)

// Agent is what the server needs of the agent.
type Agent interface {
	Download(ctx context.Context, req agent.Request, report func(agent.Progress)) error
	Status(ctx context.Context) ([]agent.Status, error)
	Settings() policy.Settings
}

// Listen makes the socket at path. One left by an agent that was killed is replaced; the
// caller has made sure, by the lock of the cache, that none is running.
func Listen(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("localapi: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("localapi: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil { // who calls is known by credentials
		ln.Close()
		return nil, fmt.Errorf("localapi: %w", err)
	}
	return ln, nil
}

// Serve answers calls until ctx ends.
func Serve(ctx context.Context, ln *net.UnixListener, a Agent, log *slog.Logger) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		c, err := ln.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("localapi: %w", err)
			}
			log.Warn("accepting a local caller", "err", err)
			time.Sleep(100 * time.Millisecond) // out of descriptors: others may be closed meanwhile
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer c.Close()
			s := session{conn: c, a: a, log: log}
			if err := s.serve(ctx); err != nil {
				log.Debug("local call", "err", err)
			}
		}()
	}
}

// session is one call.
type session struct {
	conn *net.UnixConn
	a    Agent
	log  *slog.Logger
}

func (s *session) serve(ctx context.Context) error {
	s.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	call, dir, err := receive(s.conn)
	if err != nil {
		return err
	}
	if dir != nil {
		defer dir.Close()
	}
	s.conn.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // a caller says nothing more; its going away ends the call
		bufio.NewReader(s.conn).ReadByte()
		cancel()
	}()
	var last Reply
	switch call.Op {
	case opGet:
		err = s.get(ctx, call, dir)
	case opStatus:
		last.Status, err = s.a.Status(ctx)
	case opConfig:
		last.Config = s.a.Settings().View()
	default:
		err = fmt.Errorf("unknown call %q", call.Op)
	}
	if err != nil {
		last = Reply{Error: err.Error()}
	}
	last.Done = true
	return writeLine(s.conn, last)
}

func (s *session) get(ctx context.Context, call Call, dir *os.File) error {
	ref, err := content.ParseRef(call.Content)
	if err != nil {
		return err
	}
	owner, err := callerOf(s.conn)
	if err != nil {
		return err
	}
	root, err := openDest(call, dir)
	if err != nil {
		return err
	}
	defer root.Close()
	s.log.Info("get", "content", ref.String(), "uid", owner.UID)
	req := agent.Request{Ref: ref, Dest: root, Owner: owner, NoCheck: call.NoCheck}
	return s.a.Download(ctx, req, func(p agent.Progress) {
		if err := writeLine(s.conn, Reply{Progress: &p}); err != nil {
			s.log.Debug("caller went away", "err", err)
		}
	})
}
