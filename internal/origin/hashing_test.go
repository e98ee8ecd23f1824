package origin

import (
	"sync"
	"testing"
	"testing/synctest"

	"freshet/internal/content"
)

// TestOneHashingAtATime: the second content waits until the first one is hashed.
func TestOneHashingAtATime(t *testing.T) {
	b := newBench(t)
	refs := []content.Ref{{ID: "a", Version: 1}, {ID: "b", Version: 1}}
	for _, ref := range refs {
		b.place(ref, map[string][]byte{"x": {1}})
	}
	synctest.Test(t, func(t *testing.T) {
		o, err := Open(Config{State: b.state, Root: b.root})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		begun, goOn := make(chan content.Ref, len(refs)), make(chan struct{})
		var wg sync.WaitGroup
		for _, ref := range refs {
			var first sync.Once
			wg.Go(func() {
				_, err := o.readDir(t.Context(), reading{ref: ref, progress: func(int64, int64) {
					first.Do(func() { begun <- ref; <-goOn })
				}})
				if err != nil {
					t.Error(err)
				}
			})
		}
		for i := range refs {
			synctest.Wait()
			if n := len(begun); n != i+1 {
				t.Errorf("%d contents are being hashed or were, want %d", n, i+1)
			}
			goOn <- struct{}{}
		}
		wg.Wait()
	})
}
