package swarm

import "fmt"

func (s *Swarm) Dbg() string {
	o := fmt.Sprintf("room %x trusted %x late %d stuck %d alone %v lease %d lat %v rate %.0f open %+v fetch %+v sending %d queue %v\n", s.room, s.trusted, s.late, s.stuck, s.wan.alone, s.wan.lease, s.latency, s.rate, s.open, s.wan.open, s.upload.sending, s.upload.queue)
	for _, p := range s.live {
		o += fmt.Sprintf("   %+v told %d\n", *p, s.told[p.id])
	}
	for r := 0; r < s.cfg.Runs; r++ {
		if s.pick.Missing(r) {
			o += fmt.Sprintf("   run %d asked %d row %x\n", r, s.pick.Asked(r), s.pick.Row(r))
		}
	}
	return o
}
