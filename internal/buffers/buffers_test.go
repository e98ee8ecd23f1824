package buffers

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"freshet/internal/content"
)

func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(2)
		a, err := p.Get(t.Context())
		if err != nil || len(a) != content.PieceSize || cap(a) != content.PieceSize+HeadRoom {
			t.Fatalf("length %d, capacity %d, %v", len(a), cap(a), err)
		}
		b, ok := p.TryGet()
		if !ok || &a[0] == &b[0] {
			t.Fatal("the second is the first")
		}
		if _, ok := p.TryGet(); ok || p.Lent() != 2 {
			t.Errorf("a third of two, %d lent", p.Lent())
		}
		got := make(chan []byte)
		go func() {
			c, err := p.Get(context.Background())
			if err != nil {
				t.Error(err)
			}
			got <- c
		}()
		synctest.Wait()
		select {
		case <-got:
			t.Error("Get did not wait")
		default:
		}
		p.Put(b[:7])
		if c := <-got; &c[0] != &b[0] || len(c) != content.PieceSize {
			t.Error("the one used last is not lent first, or not whole")
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		stop := errors.New("enough")
		cancel(stop)
		if _, err := p.Get(ctx); !errors.Is(err, stop) {
			t.Errorf("waiting to the end of ctx: %v", err)
		}
	})
}

func TestPutRefuses(t *testing.T) {
	p := New(2)
	a, _ := p.TryGet()
	p.Put(a)
	for name, b := range map[string][]byte{"free already": a, "another": make([]byte, 5), "not its begin": a[1:]} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			p.Put(b)
		}()
	}
}

func BenchmarkGetPut(b *testing.B) {
	p := New(DefaultCount)
	for b.Loop() {
		buf, err := p.Get(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		p.Put(buf)
	}
}
