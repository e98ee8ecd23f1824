package jobs

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestForegroundFirst(t *testing.T) {
	q := New(1)
	if got := q.OnAdd(1, false, nil); !slices.Equal(got, []ID{1}) {
		t.Fatalf("the first starts at once: got %v", got)
	}
	if got := q.OnAdd(2, false, nil); len(got) != 0 {
		t.Fatalf("the limit is one: got %v", got)
	}
	q.OnAdd(3, true, nil)
	if before, ok := q.Waiting(2); before != 1 || !ok {
		t.Errorf("Waiting(2) = %d, %v, want 1, true", before, ok)
	}
	if got := q.OnEnd(1, nil); !slices.Equal(got, []ID{3}) {
		t.Errorf("after 1: got %v, want the foreground one", got)
	}
	if got := q.OnEnd(3, nil); !slices.Equal(got, []ID{2}) {
		t.Errorf("after 3: got %v, want 2", got)
	}
}

// TestEveryJobRunsOnce adds and ends jobs in any order.
func TestEveryJobRunsOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 4).Draw(t, "limit")
		q := New(limit)
		started, ended := map[ID]bool{}, map[ID]bool{}
		var open []ID
		note := func(ids []ID) {
			for _, id := range ids {
				if started[id] || ended[id] {
					t.Fatalf("job %d started twice or after its end", id)
				}
				started[id] = true
			}
		}
		for next := ID(1); next < 40; {
			if len(open) == 0 || rapid.Bool().Draw(t, "add") {
				open = append(open, next)
				note(q.OnAdd(next, rapid.Bool().Draw(t, "foreground"), nil))
				next++
			} else {
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				id := open[i]
				open = slices.Delete(open, i, i+1)
				ended[id] = true
				note(q.OnEnd(id, nil))
			}
			running := 0
			for _, id := range open {
				_, waits := q.Waiting(id)
				if waits == started[id] {
					t.Fatalf("job %d waits %v, started %v", id, waits, started[id])
				}
				if started[id] {
					running++
				}
			}
			if running > limit || running < min(limit, len(open)) {
				t.Fatalf("%d run of %d open, limit %d", running, len(open), limit)
			}
		}
	})
}
