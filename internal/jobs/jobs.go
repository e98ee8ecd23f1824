// Package jobs decides which downloads run: at most so many at once, foreground before
// background, and within each in the order in which they came. It has no I/O and no clock;
// the shell starts what the actions name and says when it ended.
package jobs

// ID names a download; the shell gives it, and never twice.
type ID int64

// Queue is the state. It is not safe for concurrent use.
//
// Invariant: len(running) ≤ limit; while a job waits,
// len(running) = limit.
type Queue struct {
	limit      int
	running    map[ID]bool
	foreground []ID // waiting
	background []ID // waiting
}

// New returns a queue that runs up to limit downloads at once.
func New(limit int) *Queue {
	return &Queue{limit: max(limit, 1), running: map[ID]bool{}}
}

// OnAdd notes a new download and appends those to start now.
func (q *Queue) OnAdd(id ID, foreground bool, start []ID) []ID {
	if foreground {
		q.foreground = append(q.foreground, id)
	} else {
		q.background = append(q.background, id)
	}
	return q.fill(start)
}

// OnEnd notes that a download ended, or was withdrawn before it ran, and appends those to
// start now.
func (q *Queue) OnEnd(id ID, start []ID) []ID {
	delete(q.running, id)
	q.foreground = without(q.foreground, id)
	q.background = without(q.background, id)
	return q.fill(start)
}

// Waiting returns how many downloads wait before id, and whether it waits at all.
func (q *Queue) Waiting(id ID) (before int, ok bool) {
	for i, w := range q.foreground {
		if w == id {
			return i, true
		}
	}
	for i, w := range q.background {
		if w == id {
			return len(q.foreground) + i, true
		}
	}
	return 0, false
}

func (q *Queue) fill(start []ID) []ID {
	for len(q.running) < q.limit {
		var id ID
		switch {
		case len(q.foreground) > 0:
			id, q.foreground = q.foreground[0], q.foreground[1:]
		case len(q.background) > 0:
			id, q.background = q.background[0], q.background[1:]
		default:
			return start
		}
		q.running[id] = true
		start = append(start, id)
	}
	return start
}

func without(ids []ID, id ID) []ID {
	for i, w := range ids {
		if w == id {
			return append(ids[:i:i], ids[i+1:]...)
		}
	}
	return ids
}
