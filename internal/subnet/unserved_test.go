package subnet

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestOutAt: while no array answers, a leader says when it goes out, and then goes; with an array's
// word it says nothing.
func TestOutAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fleet(t, 2)
		for _, d := range w.devices {
			w.enter(d, 0)
			d.c.Lease(Lease{})
		}
		w.run(2 * time.Second)
		leader := w.one(w.devices...)
		st := leader.now()
		if in := time.Until(st.OutAt); st.Out || in < 40*time.Second || in > 68*time.Second {
			t.Fatalf("a leader without an array's word is %+v, out in %v", st, in)
		}
		for _, d := range w.devices {
			if st := d.now(); d != leader && !st.OutAt.IsZero() {
				t.Errorf("a device that follows goes out at %v", st.OutAt)
			}
		}
		leader.c.Lease(Lease{Known: true})
		if st := leader.now(); !st.OutAt.IsZero() {
			t.Errorf("with an array's word it is %+v", st)
		}
		leader.c.Lease(Lease{})
		<-time.After(time.Until(leader.now().OutAt) + time.Second)
		if st := leader.now(); !st.Out || !st.OutAt.IsZero() {
			t.Errorf("when its time has come it is %+v", st)
		}
	})
}
