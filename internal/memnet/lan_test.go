package memnet

import (
	"net/netip"
	"slices"
	"testing"

	"freshet/internal/lan"
)

// TestSegment: who is on a segment hears what is sent there, but for those that are cut off,
// and nobody while it is hushed.
func TestSegment(t *testing.T) {
	var g, other Segment
	var heard []string
	open := func(name string, on *Segment) (*Host, lan.Socket) {
		l := lan.Link{Index: 1, Local: netip.MustParsePrefix(name + "/24")}
		h := &Host{}
		h.Plug(map[lan.Link]*Segment{l: on})
		if links, err := h.Links(); err != nil || !slices.Equal(links, []lan.Link{l}) {
			t.Errorf("links %v, %v", links, err)
		}
		s, err := h.Open(l, func(from netip.AddrPort, b []byte) lan.Reason {
			heard = append(heard, from.Addr().String()+" to "+name+": "+string(b))
			return lan.Taken
		})
		if err != nil {
			t.Fatal(err)
		}
		return h, s
	}
	want := func(what string, lines ...string) {
		t.Helper()
		slices.Sort(heard)
		if !slices.Equal(heard, lines) {
			t.Errorf("%s: heard %q, want %q", what, heard, lines)
		}
		heard = nil
	}
	first, a := open("10.0.0.1", &g)
	_, b := open("10.0.0.2", &g)
	open("10.0.0.3", &other)
	check := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	check(a.SendAll([]byte("x")))
	want("all", "10.0.0.1 to 10.0.0.1: x", "10.0.0.1 to 10.0.0.2: x")
	check(b.SendTo([]byte("y"), netip.MustParseAddrPort("10.0.0.1:7680")))
	want("one", "10.0.0.2 to 10.0.0.1: y")
	g.Hush(true)
	check(a.SendAll([]byte("x")))
	want("hushed")
	g.Hush(false)
	first.Cut()
	check(a.SendAll([]byte("x")))
	want("from one that is cut off")
	check(b.SendAll([]byte("z")))
	want("to one that is cut off", "10.0.0.2 to 10.0.0.2: z")
	check(b.Close())
	check(b.SendTo([]byte("y"), netip.MustParseAddrPort("10.0.0.2:7680")))
	want("closed")
}
