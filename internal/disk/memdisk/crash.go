package memdisk

import (
	"maps"
	"slices"
)

// move is the renaming of a directory, which a power cut finds done or not done, never half.
type move struct {
	from, to         *node
	fromName, toName string
	n                *node
}

// settle does or undoes a move. It is done when one of the two directories was synced after it.
func (m move) settle(kept bool) {
	durable := m.to.durableNames[m.toName] == m.n || m.from.durableNames[m.fromName] != m.n
	if durable || kept {
		if m.from.durableNames[m.fromName] == m.n {
			delete(m.from.durableNames, m.fromName)
		}
		if m.to.names[m.toName] == m.n {
			m.to.durableNames[m.toName] = m.n
		}
		return
	}
	if m.to.names[m.toName] == m.n {
		delete(m.to.names, m.toName)
	}
	m.from.names[m.fromName] = m.n
}

// Crash returns the disk as the next boot finds it. For each sector and each name that was not
// synced, kept says whether a power cut leaves it all the same; always true is a process that
// was killed.
func (d *Disk) Crash(kept func() bool) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := crasher{kept: kept, done: map[*node]*node{}}
	for _, m := range slices.Backward(d.moves) {
		m.settle(c.kept())
	}
	d.moves = nil
	return &Disk{root: c.node(d.root), clock: d.clock, room: d.room}
}

type crasher struct {
	kept func() bool
	done map[*node]*node
}

func (c *crasher) node(n *node) *node {
	if out := c.done[n]; out != nil {
		return out
	}
	out := &node{isDir: n.isDir, mode: n.mode, mtime: n.mtime}
	c.done[n] = out
	if !n.isDir {
		c.bytes(n, out)
		return out
	}
	out.names = map[string]*node{}
	all := maps.Clone(n.durableNames)
	maps.Copy(all, n.names)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		sub := n.durableNames[name]
		if now := n.names[name]; now != sub && c.kept() {
			sub = now
		}
		if sub != nil {
			out.names[name] = c.node(sub)
		}
	}
	out.durableNames = maps.Clone(out.names)
	return out
}

// bytes keeps any sectors of what was not synced; the size is the old or the new one.
func (c *crasher) bytes(n, out *node) {
	const sector = 512
	out.data = slices.Clone(n.durable)
	if len(n.data) != len(n.durable) && c.kept() {
		out.data = append(out.data, make([]byte, max(len(n.data)-len(out.data), 0))...)[:len(n.data)]
	}
	for at := 0; at < min(len(out.data), len(n.data)); at += sector {
		end := min(at+sector, len(out.data), len(n.data))
		if c.kept() {
			copy(out.data[at:end], n.data[at:end])
		}
	}
	out.durable = slices.Clone(out.data)
}
