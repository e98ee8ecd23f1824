package web

import (
	"io"
	"strings"
	"testing"
)

// TestHeard: who wants to hear of a body's bytes does, each time that some come.
func TestHeard(t *testing.T) {
	heard := 0
	ctx := WithHeard(t.Context(), func() { heard++ })
	b := Heard(ctx, io.NopCloser(strings.NewReader("0123456789")))
	if _, err := io.ReadFull(b, make([]byte, 4)); err != nil || heard != 1 {
		t.Errorf("heard %d times, %v; want once", heard, err)
	}
	if rest, err := io.ReadAll(b); err != nil || string(rest) != "456789" || heard != 2 {
		t.Errorf("the rest is %q, %v; heard %d times, want twice: the end brings nothing", rest, err, heard)
	}
	plain := io.NopCloser(strings.NewReader("x"))
	if Heard(t.Context(), plain) != plain {
		t.Error("a body is wrapped that nobody wants to hear of")
	}
}
