//go:build unix

package localapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"freshet/internal/agent"
	"freshet/internal/content"
	"freshet/internal/deliver"
	"freshet/internal/expected"
	"freshet/internal/guard"
	"freshet/internal/policy"
	"freshet/internal/wire"
)

const (
	callEnv = "FRESHET_TEST_CALL" // "SOCKET DIR": the test binary gets "x" as another user; "SOCKET status", config or traffic: what it says
	other   = 65534               // a user without rights
)

func TestMain(m *testing.M) {
	if args := strings.Fields(os.Getenv(callEnv)); len(args) == 2 {
		os.Exit(callAsOther(args[0], args[1]))
	}
	goleak.VerifyTestMain(m)
}

// callAsOther gets "x" into dir, or asks what dir says; the exit status tells whether it was let.
func callAsOther(socket, dir string) int {
	c, err := Client{Path: socket}, error(nil)
	switch dir {
	case opStatus:
		var all []agent.Status
		all, err = c.Status(context.Background())
		for _, s := range all {
			fmt.Println(s.Ref)
		}
	case opConfig:
		_, err = c.Config(context.Background())
	case opTraffic:
		_, err = c.Traffic(context.Background())
	default:
		var d *os.File
		if d, err = os.Open(dir); err == nil {
			err = c.Get(context.Background(), Call{Content: "x"}, d, nil)
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// fake is an agent that does as the test says.
type fake struct {
	download func(ctx context.Context, req agent.Request, report func(agent.Progress)) error
	status   []agent.Status
	traffic  []agent.Traffic

	mu    sync.Mutex // guards the following
	calls []agent.Request
}

func (f *fake) Download(ctx context.Context, req agent.Request, report func(agent.Progress)) error {
	f.mu.Lock()
	f.calls = append(f.calls, req)
	f.mu.Unlock()
	if f.download == nil {
		return nil
	}
	return f.download(ctx, req, report)
}

func (f *fake) Status(context.Context) ([]agent.Status, error) { return slices.Clone(f.status), nil }

func (f *fake) Settings() policy.Settings { return policy.Settings{} }

func (f *fake) Traffic() []agent.Traffic { return f.traffic }

func (f *fake) LAN() agent.LAN { return agent.LAN{Heard: 7, Dropped: map[string]uint64{"flood": 2}} }

// serve serves a until the test ends or stop is called.
func serve(t *testing.T, a Agent) (c Client, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "freshet-") // short: a socket's name has a limit
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, a, slog.New(slog.DiscardHandler)) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(2 * callerTime):
			t.Error("Serve does not end")
		}
		os.RemoveAll(dir)
	})
	t.Cleanup(stop)
	return Client{Path: path}, stop
}

func openDir(t *testing.T, name string) *os.File {
	t.Helper()
	d, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestGet(t *testing.T) {
	f := &fake{download: func(_ context.Context, req agent.Request, report func(agent.Progress)) error {
		for i := range 3 {
			report(agent.Progress{Ref: req.Ref.String(), Held: int64(i)})
		}
		w, err := req.Dest.Create("made")
		if err != nil {
			return err
		}
		return w.Close()
	}}
	c, _ := serve(t, f)
	dir := t.TempDir()
	var seen []agent.Progress
	err := c.Get(t.Context(), Call{Content: "x@3", NoCheck: true}, openDir(t, dir), func(p agent.Progress) { seen = append(seen, p) })
	if err != nil || len(seen) != 3 || seen[2].Held != 2 || seen[0].Ref != "x@3" {
		t.Errorf("progress %v, %v", seen, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "made")); err != nil {
		t.Error(err)
	}
	req := f.calls[0]
	if want := (deliver.Owner{UID: os.Getuid(), GID: os.Getgid()}); req.Owner != want || req.Ref.String() != "x@3" || !req.NoCheck {
		t.Errorf("request %+v", req)
	}
}

// TestGetByURL: a URL goes to the agent in its normal form.
func TestGetByURL(t *testing.T) {
	f := &fake{}
	c, _ := serve(t, f)
	dir := openDir(t, t.TempDir())
	if err := c.Get(t.Context(), Call{Content: "HTTPS://DL.example:443/tool?a#b"}, dir, nil); err != nil {
		t.Fatal(err)
	}
	if req := f.calls[0]; req.URL != "https://dl.example/tool?a" || req.Ref.ID != "" {
		t.Errorf("request %+v", req)
	}
	for _, bad := range []string{"ftp://dl.example/tool", "https://jo:hunter2@dl.example/"} {
		err := c.Get(t.Context(), Call{Content: bad}, dir, nil)
		if err == nil || strings.Contains(err.Error(), "hunter2") || len(f.calls) != 1 {
			t.Errorf("%s: %v after %d calls", bad, err, len(f.calls))
		}
	}
}

// TestGetExpecting: expected metadata goes along, up to its bound.
func TestGetExpecting(t *testing.T) {
	document := `<Content ContentId="x" Version="3"><FileContent Name="a" Hash="8E8E0175D46B5A8D52C4856FA3D282FAA12ACD63" HashAlgorithm="SHA1" Size="1"/></Content>`
	f := &fake{}
	c, _ := serve(t, f)
	dir := openDir(t, t.TempDir())
	for _, pad := range []int{0, 100_000, expected.MaxSize - len(document)} {
		f.calls = nil
		text := document + strings.Repeat("\n", pad)
		if err := c.Get(t.Context(), Call{Content: "x@3", Metadata: []byte(text), Match: "subset"}, dir, nil); err != nil {
			t.Fatalf("%d bytes: %v", len(text), err)
		}
		if req := f.calls[0]; len(req.Expect) != 1 || req.Expect[0].Ref != req.Ref || req.Match != content.Subset {
			t.Errorf("%d bytes: request %+v", len(text), req)
		}
	}
	for what, call := range map[string]Call{
		"more than 4194304": {Metadata: make([]byte, expected.MaxSize+1)},
		"cut short":         {Metadata: []byte(document[:len(document)-3])},
		"match":             {Metadata: []byte(document), Match: "roughly"},
	} {
		call.Content = "x@3"
		err := c.Get(t.Context(), call, dir, nil)
		if what == "more than 4194304" {
			what = "4194304 are allowed"
			if errors.Is(err, ErrGone) { // it was refused before all of it was sent
				continue
			}
		}
		if err == nil || !strings.Contains(err.Error(), what) || len(f.calls) != 1 {
			t.Errorf("%s: %v after %d calls", what, err, len(f.calls))
		}
	}
}

// TestLongStatus: contents with much to tell come in several lines.
func TestLongStatus(t *testing.T) {
	f := &fake{}
	for n := range 100 {
		st := agent.Status{Ref: fmt.Sprintf("c%d@1", n), Freshness: &guard.Finding{}}
		for range 8 {
			st.Freshness.Missing = append(st.Freshness.Missing, strings.Repeat("x", 120))
		}
		f.status = append(f.status, st)
	}
	c, _ := serve(t, f)
	got, err := c.Status(t.Context())
	if err != nil || len(got) != 100 || got[99].Ref != "c99@1" || len(got[99].Freshness.Missing) != 8 {
		t.Errorf("%d contents, %v", len(got), err)
	}
}

func TestVisible(t *testing.T) {
	all := func() []agent.Status {
		return []agent.Status{{Ref: "a", Users: []int{1001}}, {Ref: "b", Users: []int{1001, 1002}}, {Ref: "c", Users: []int{0}}, {Ref: "d"}}
	}
	for uid, want := range map[int]string{0: "abcd", os.Geteuid(): "abcd", 1001: "ab", 1002: "b", 1003: ""} {
		got := ""
		for _, s := range visible(all(), uid) {
			got += s.Ref
		}
		if got != want {
			t.Errorf("user %d sees %q, want %q", uid, got, want)
		}
	}
}

// TestConfigHoldsNoSecrets: everybody may read the settings. One that can hold text could hold
// a password; it must not come into the table before the answer hides it.
func TestConfigHoldsNoSecrets(t *testing.T) {
	safe := []policy.Kind{policy.Int, policy.Duration, policy.Bool, policy.Enum, policy.Word, policy.PublicKeys, policy.Directory}
	for _, s := range policy.Table() {
		if !slices.Contains(safe, s.Kind) {
			t.Errorf("setting %s is of kind %v: may it be told to every user?", s.Name, s.Kind)
		}
	}
}

func TestErrors(t *testing.T) {
	f := &fake{download: func(context.Context, agent.Request, func(agent.Progress)) error { return errors.New("no such content") }}
	c, _ := serve(t, f)
	dir := openDir(t, t.TempDir())
	if err := c.Get(t.Context(), Call{Content: "x"}, dir, nil); err == nil || err.Error() != "no such content" || errors.Is(err, ErrGone) {
		t.Errorf("error %v", err)
	}
	if err := c.Get(t.Context(), Call{Content: "../x"}, dir, nil); err == nil || !strings.Contains(err.Error(), "../x") {
		t.Errorf("bad content: %v", err)
	}
	if _, err := c.call(t.Context(), Call{Op: opGet, Content: "x"}, nil, nil); err == nil || !strings.Contains(err.Error(), "destination directory") {
		t.Errorf("no directory: %v", err)
	}
	if err := c.Get(t.Context(), Call{Content: "x"}, openDir(t, os.DevNull), nil); err == nil || !strings.Contains(err.Error(), "destination") {
		t.Errorf("not a directory: %v", err)
	}
	if _, err := c.call(t.Context(), Call{Op: "format"}, nil, nil); err == nil || !strings.Contains(err.Error(), `"format"`) {
		t.Errorf("unknown call: %v", err)
	}
	_, err := Client{Path: c.Path + "x"}.Status(t.Context())
	if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), `is "freshet agent" running`) {
		t.Errorf("no agent: %v", err)
	}
}

// TestRubbish: what is no call gets no answer, and costs nothing.
func TestRubbish(t *testing.T) {
	c, _ := serve(t, &fake{})
	for name, sent := range map[string][]byte{
		"no line":  []byte("hello"),
		"no JSON":  []byte("hello\n"),
		"too long": bytes.Repeat([]byte("x"), maxLine+10),
	} {
		conn, err := net.Dial("unix", c.Path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(sent); err != nil {
			t.Logf("%s: %v", name, err) // it may have hung up by now
		}
		conn.(*net.UnixConn).CloseWrite()
		if got, _ := io.ReadAll(conn); len(got) != 0 {
			t.Errorf("%s: answer %q", name, got)
		}
		conn.Close()
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStatusTrafficAndConfig(t *testing.T) {
	f := &fake{}
	for i := range 1000 { // far more than a line holds
		f.traffic = append(f.traffic, agent.Traffic{Device: wire.DeviceID{byte(i), byte(i >> 8)}, Sent: math.MaxInt64, Received: math.MaxInt64, Far: true})
		f.status = append(f.status, agent.Status{Ref: fmt.Sprintf("content-%d@1", i), Manifest: strings.Repeat("0", 64), Waits: strings.Repeat("w", 300)})
	}
	c, _ := serve(t, f)
	got, err := c.Status(t.Context())
	if err != nil || len(got) != len(f.status) {
		t.Fatalf("%d contents, %v; want %d", len(got), err, len(f.status))
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], f.status[i]) {
			t.Fatalf("content %d is %+v", i, got[i])
		}
	}
	if got, err := c.Traffic(t.Context()); err != nil || !slices.Equal(got, f.traffic) {
		t.Errorf("traffic with %d devices, %v; want %d", len(got), err, len(f.traffic))
	}
	if got, err := c.LAN(t.Context()); err != nil || !reflect.DeepEqual(got, f.LAN()) {
		t.Errorf("datagrams %+v, %v; want %+v", got, err, f.LAN())
	}
	settings, err := c.Config(t.Context())
	if err != nil || len(settings) != len(policy.Table()) || settings[0].Name != policy.Table()[0].Name {
		t.Errorf("settings %v, %v", settings, err)
	}
}

// TestCallerLeaves: a caller that goes away ends its download.
func TestCallerLeaves(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	c, _ := serve(t, &fake{download: func(ctx context.Context, _ agent.Request, _ func(agent.Progress)) error {
		close(began)
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	if err := c.Get(ctx, Call{Content: "x"}, openDir(t, t.TempDir()), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	<-ended
}

// TestAgentStops: an agent that stops in an orderly way looks to callers like one that was
// killed: they may ask again.
func TestAgentStops(t *testing.T) {
	began := make(chan struct{})
	c, stop := serve(t, &fake{download: func(ctx context.Context, _ agent.Request, _ func(agent.Progress)) error {
		close(began)
		<-ctx.Done()
		return ctx.Err()
	}})
	go func() {
		<-began
		stop()
	}()
	if err := c.Get(t.Context(), Call{Content: "x"}, openDir(t, t.TempDir()), nil); !errors.Is(err, ErrGone) {
		t.Errorf("error %v, want %v", err, ErrGone)
	}
	c, _ = serve(t, &fake{download: func(context.Context, agent.Request, func(agent.Progress)) error {
		return fmt.Errorf("x: %w", agent.ErrStopping)
	}})
	if err := c.Get(t.Context(), Call{Content: "x"}, openDir(t, t.TempDir()), nil); !errors.Is(err, ErrGone) {
		t.Errorf("error %v, want %v", err, ErrGone)
	}
}

// TestListenTwice: a socket that a killed agent left is replaced.
func TestListenTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	if ln, err = Listen(path); err != nil {
		t.Fatal(err)
	}
	ln.Close()
}

// asOther returns how another user makes a call at a socket, and a directory that they see.
func asOther(t *testing.T, socket string) (base string, call func(what string) (out []byte, err error)) {
	t.Helper()
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("needs root on Linux, to call as another user")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if base, err = os.MkdirTemp("", "freshet-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	bin := filepath.Join(base, "test") // where others may run it
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(base, 0o755), os.WriteFile(bin, b, 0o755)); err != nil {
		t.Fatal(err)
	}
	return base, func(what string) ([]byte, error) {
		cmd := exec.Command(bin)
		cmd.Env = []string{callEnv + "=" + socket + " " + what}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
		return cmd.CombinedOutput()
	}
}

// TestOtherUserSees their own contents and the settings.
func TestOtherUserSees(t *testing.T) {
	f := &fake{status: []agent.Status{{Ref: "roots", Users: []int{0}}, {Ref: "theirs", Users: []int{0, other}}, {Ref: "nobodys"}}}
	c, _ := serve(t, f)
	_, as := asOther(t, c.Path)
	if out, err := as(opStatus); err != nil || string(out) != "theirs\n" {
		t.Errorf("status: %q, %v; want their own alone", out, err)
	}
	if out, err := as(opConfig); err != nil {
		t.Errorf("config: %q, %v", out, err)
	}
	if out, err := as(opTraffic); err == nil || !strings.Contains(string(out), "root") {
		t.Errorf("traffic: %q, %v; want a refusal", out, err)
	}
	if all, err := c.Status(t.Context()); err != nil || len(all) != 3 {
		t.Errorf("root sees %v, %v; want all", all, err)
	}
}

// TestOtherUser: an agent that is root writes only where its caller may.
func TestOtherUser(t *testing.T) {
	f := &fake{}
	c, _ := serve(t, f)
	base, as := asOther(t, c.Path)
	for name, test := range map[string]struct {
		uid, gid int // owner of the directory
		mode     os.FileMode
		ok       bool
	}{
		"root's":              {0, 0, 0o755, false},
		"its own":             {other, other, 0o700, true},
		"its own, read-only":  {other, other, 0o500, false},
		"its group's":         {0, other, 0o770, true},
		"everybody's":         {0, 0, 0o777, true},
		"everybody's to read": {0, 0, 0o775, false},
	} {
		dir := filepath.Join(base, "dir")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, test.uid, test.gid), os.Chmod(dir, test.mode)); err != nil {
			t.Fatal(err)
		}
		out, err := as(dir)
		if ok := err == nil; ok != test.ok {
			t.Errorf("%s: let in %v, want %v (%v): %s", name, ok, test.ok, err, out)
		}
		if !test.ok && !strings.Contains(string(out), "is not yours to write to") {
			t.Errorf("%s: said %s", name, out)
		}
		os.RemoveAll(dir)
	}
	for _, req := range f.calls {
		if req.Owner != (deliver.Owner{UID: other, GID: other}) {
			t.Errorf("the owner is %+v", req.Owner)
		}
	}
	if os.Geteuid() != 0 {
		t.Error("the process has lost its rights")
	}
	if err := os.WriteFile(filepath.Join(base, "root"), nil, 0o600); err != nil {
		t.Error(err)
	}
}
