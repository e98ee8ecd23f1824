package expected

import (
	"context"
	"errors"
	"testing"

	"freshet/internal/content"
)

var systemRef = content.Ref{ID: "app", Version: 1}

const systemDocument = `<Content ContentId="app" Version="1"><FileContent Name="a" Hash="8E8E0175D46B5A8D52C4856FA3D282FAA12ACD63" HashAlgorithm="SHA1" Size="1"/></Content>`

// TestSystem: a device without the client knows nothing; one whose client fails later does not
// know what it expects.
func TestSystem(t *testing.T) {
	none := NewSystem(func(context.Context) ([]Row, error) { return nil, ErrNoClient })
	if none.Probe(t.Context()) {
		t.Error("there is a client where there is none")
	}
	if _, err := none.Lookup(t.Context(), systemRef); !errors.Is(err, ErrNone) {
		t.Errorf("without a client: %v", err)
	}
	var broken error
	client := NewSystem(func(context.Context) ([]Row, error) { return []Row{{"Metadata": systemDocument}}, broken })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Lookup(ctx, systemRef); !errors.Is(err, context.Canceled) {
		t.Errorf("before it was probed: %v", err)
	}
	if !client.Probe(t.Context()) {
		t.Error("the client is not seen")
	}
	if c, err := client.Lookup(t.Context(), systemRef); err != nil || len(c.Files) != 1 {
		t.Errorf("with a client: %+v, %v", c, err)
	}
	broken = errors.New("no memory")
	if _, err := client.Lookup(t.Context(), systemRef); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("a client that fails: %v", err)
	}
}

// fixed is a provider that always says the same.
type fixed struct {
	c   Content
	err error
}

func (f fixed) Lookup(context.Context, content.Ref) (Content, error) { return f.c, f.err }

func TestSeveral(t *testing.T) {
	broken := errors.New("cannot be read")
	one, two := fixed{c: Content{Ref: systemRef}}, fixed{c: Content{Ref: content.Ref{ID: "other", Version: 1}}}
	for _, tt := range []struct {
		s    Several
		want content.ID
		err  error
	}{
		{nil, "", ErrNone},
		{Several{fixed{err: ErrNone}, fixed{err: ErrNone}}, "", ErrNone},
		{Several{one, two}, "app", nil},
		{Several{fixed{err: ErrNone}, two}, "other", nil},
		{Several{fixed{err: broken}, one}, "app", nil},
		{Several{fixed{err: ErrNone}, fixed{err: broken}}, "", broken},
		{Several{fixed{err: broken}, fixed{err: ErrNone}}, "", broken},
	} {
		c, err := tt.s.Lookup(t.Context(), systemRef)
		if c.Ref.ID != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%+v: %q, %v; want %q, %v", tt.s, c.Ref.ID, err, tt.want, tt.err)
		}
	}
}
