package subnet

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"freshet/internal/election"
	"freshet/internal/wire"
)

// ErrAskOutside says that nobody on the subnet holds what was sought, and that it falls to this
// device to ask the services. Others on the subnet wait for it until Sought is called.
var ErrAskOutside = errors.New("subnet: nobody on the subnet holds it")

// Holding is something that the subnet holds.
type Holding struct {
	election.Holding
	Swarm netip.AddrPort // of Device; zero: not known
}

// seek is a question by name.
type seek struct {
	subject  wire.Subject
	priority wire.Priority
	outside  map[*brain]bool // that found nothing
	waiters  []chan<- []Holding
}

// Seek asks the subnets what they hold of a subject, by MetadataHash or by ContentID and
// version. [ErrAskOutside] is an answer, too; it comes at once where no link is open. Whoever
// got it calls Sought when the services were asked.
func (s *Subnet) Seek(ctx context.Context, subject wire.Subject, p wire.Priority) ([]Holding, error) {
	found := make(chan []Holding, 1)
	s.post(func() { s.seek(subject, p, found) })
	select {
	case h := <-found:
		if len(h) == 0 {
			return nil, ErrAskOutside
		}
		return h, nil
	case <-s.done:
		return nil, ErrAskOutside
	case <-ctx.Done():
		s.post(func() { s.giveUp(subject, found) })
		return nil, context.Cause(ctx)
	}
}

// Sought tells that this device knows what a subject means, or wants to know it no more.
func (s *Subnet) Sought(subject wire.Subject) { s.post(func() { s.sought(subject) }) }

func (s *Subnet) seek(subject wire.Subject, p wire.Priority, found chan<- []Holding) {
	k := s.seeks[subject]
	if k == nil {
		k = &seek{subject: subject, priority: p, outside: map[*brain]bool{}}
		s.seeks[subject] = k
		for _, b := range s.brains {
			s.do(b, b.OnSeek(s.now(), subject, p, nil))
		}
	}
	k.waiters = append(k.waiters, found)
	s.answer(k)
}

// answer tells those who wait that nobody holds it, once every subnet was asked.
func (s *Subnet) answer(k *seek) {
	if len(k.outside) == len(s.brains) {
		k.tell(nil)
	}
}

func (k *seek) tell(h []Holding) {
	for _, w := range k.waiters {
		w <- h
	}
	k.waiters = nil
}

func (s *Subnet) found(subject wire.Subject, holdings []election.Holding) {
	k := s.seeks[subject]
	if k == nil {
		return
	}
	h := make([]Holding, len(holdings))
	for i := range holdings {
		h[i].Holding = holdings[i]
		for _, b := range s.brains {
			if n := b.seen[holdings[i].Device]; n != nil {
				h[i].Swarm = n.swarm
			}
		}
	}
	k.tell(h)
	s.sought(subject)
}

func (s *Subnet) askOutside(b *brain, subject wire.Subject) {
	if k := s.seeks[subject]; k != nil {
		k.outside[b] = true
		s.answer(k)
	}
}

// sought ends a seek. Who waits for it began after the caller had its answer, and asks outside.
func (s *Subnet) sought(subject wire.Subject) {
	if k := s.seeks[subject]; k != nil {
		k.tell(nil)
	}
	delete(s.seeks, subject)
	for _, b := range s.brains {
		b.OnSought(subject)
	}
}

func (s *Subnet) giveUp(subject wire.Subject, found chan<- []Holding) {
	k := s.seeks[subject]
	if k == nil {
		return
	}
	before := len(k.waiters)
	k.waiters = slices.DeleteFunc(k.waiters, func(w chan<- []Holding) bool { return w == found })
	if before > 0 && len(k.waiters) == 0 {
		s.sought(subject)
	}
}

// Hint is a Validate Metadata that a device of the subnet broadcast.
type Hint struct {
	wire.Validate
	From  wire.DeviceID
	Index int // of the interface
}

// OnHint lets f have the hints that come. The loop calls it; it waits for nothing.
func (s *Subnet) OnHint(f func(Hint)) { s.hint.Store(&f) }

// SendHint broadcasts a hint on all subnets.
func (s *Subnet) SendHint(v wire.Validate) {
	s.post(func() {
		for _, b := range s.brains {
			s.broadcast(b, v)
		}
	})
}
