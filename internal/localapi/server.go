package localapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"freshet/internal/agent"
	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/expected"
	"freshet/internal/policy"
)

// Agent is what the server needs of the agent.
type Agent interface {
	Download(ctx context.Context, req agent.Request, report func(agent.Progress)) error
	Status(ctx context.Context) ([]agent.Status, error)
	Settings() policy.Settings
	Traffic() []agent.Traffic
	LAN() agent.LAN
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
			s := session{conn: c, a: a, log: log, cancel: func() {}}
			if err := s.serve(ctx); err != nil {
				log.Debug("local call", "err", err)
			}
		}()
	}
}

// session is one call.
type session struct {
	conn   *net.UnixConn
	a      Agent
	log    *slog.Logger
	cancel func() // ends the call
}

const callerTime = 10 * time.Second // for a call to come, and for a line to leave

func (s *session) serve(serving context.Context) error {
	s.conn.SetReadDeadline(time.Now().Add(callerTime))
	call, dir, err := receive(s.conn)
	if dir != nil {
		defer dir.Close()
	}
	if err != nil && call.Op != "" { // it is a call, and what follows it is wrong
		return errors.Join(err, s.write(Reply{Error: err.Error(), Done: true}))
	}
	if err != nil {
		return err
	}
	s.conn.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(serving)
	defer cancel()
	s.cancel = cancel
	go func() { // a caller says nothing more; its going away ends the call
		bufio.NewReader(s.conn).ReadByte()
		cancel()
	}()
	last, err := s.answer(ctx, call, dir)
	switch {
	case err != nil && (serving.Err() != nil || errors.Is(err, agent.ErrStopping)):
		return err // without a last line the caller knows that it may ask again
	case err != nil:
		last = Reply{Error: err.Error()}
	}
	last.Done = true
	return s.write(last)
}

// answer makes the call. It returns the last line.
func (s *session) answer(ctx context.Context, call Call, dir *os.File) (last Reply, err error) {
	switch call.Op {
	case opGet:
		err = s.get(ctx, call, dir)
	case opStatus:
		last.Status, err = s.status(ctx)
	case opTraffic:
		last.Traffic, err = s.traffic()
	case opLAN:
		heard := s.a.LAN()
		last.LAN = &heard
	case opConfig:
		last.Config = s.a.Settings().View()
	default:
		err = fmt.Errorf("unknown call %q", call.Op)
	}
	return last, err
}

// status writes all lines of a status but the last one.
func (s *session) status(ctx context.Context) ([]agent.Status, error) {
	owner, err := callerOf(s.conn)
	if err != nil {
		return nil, err
	}
	all, err := s.a.Status(ctx)
	all = visible(all, owner.UID)
	for err == nil {
		n := fitting(all)
		if n == len(all) {
			break
		}
		err = s.write(Reply{Status: all[:n]})
		all = all[n:]
	}
	return all, err
}

// fitting returns how many contents can be told of in one line: one at least.
func fitting(all []agent.Status) int {
	size := 0
	for n := range all {
		b, err := json.Marshal(&all[n])
		if err != nil {
			return len(all) // writing it says so
		}
		if size += len(b) + 1; n > 0 && size > maxLine/2 {
			return n
		}
	}
	return len(all)
}

// visible returns what a user may see of a status.
func visible(all []agent.Status, uid int) []agent.Status {
	if seesAll(uid) {
		return all
	}
	return slices.DeleteFunc(all, func(st agent.Status) bool { return !slices.Contains(st.Users, uid) })
}

// traffic writes all lines of traffic but the last one.
func (s *session) traffic() ([]agent.Traffic, error) {
	owner, err := callerOf(s.conn)
	if err != nil {
		return nil, err
	}
	if !seesAll(owner.UID) {
		return nil, errors.New("the traffic with other devices is told to root and to the agent's own user alone")
	}
	all := s.a.Traffic()
	for err == nil && len(all) > trafficLine {
		err = s.write(Reply{Traffic: all[:trafficLine]})
		all = all[trafficLine:]
	}
	return all, err
}

// seesAll reports whether a user may hear of what others asked for.
func seesAll(uid int) bool { return uid == 0 || uid == os.Geteuid() }

// write writes a line. A caller that does not read is left.
func (s *session) write(r Reply) error {
	s.conn.SetWriteDeadline(time.Now().Add(callerTime))
	err := writeLine(s.conn, r)
	if err != nil {
		s.cancel()
	}
	return err
}

func (s *session) get(ctx context.Context, call Call, dir *os.File) error {
	req, err := requestOf(call)
	if err != nil {
		return err
	}
	owner, err := callerOf(s.conn)
	if err != nil {
		return err
	}
	root, err := openDest(call, dir, owner)
	if err != nil {
		return err
	}
	defer root.Close()
	s.log.Info("get", "content", req.String(), "uid", owner.UID)
	req.Dest, req.Owner = root, owner
	err = s.a.Download(ctx, req, func(p agent.Progress) {
		if err := s.write(Reply{Progress: &p}); err != nil {
			s.log.Debug("caller went away", "err", err)
		}
	})
	return call.explain(err, root)
}

// requestOf reads what a get asks for: a content by name, or by a URL.
func requestOf(call Call) (req agent.Request, err error) {
	req = agent.Request{NoCheck: call.NoCheck, Foreground: call.Foreground}
	if strings.Contains(call.Content, "://") {
		req.URL, err = api.NormalURL(call.Content)
	} else {
		req.Ref, err = content.ParseRef(call.Content)
	}
	if err != nil || call.Metadata == nil {
		return req, err
	}
	if call.Match != "" {
		if req.Match, err = content.ParseMatch(call.Match); err != nil {
			return req, err
		}
	}
	req.Expect, err = expected.Parse(bytes.NewReader(call.Metadata))
	return req, err
}
