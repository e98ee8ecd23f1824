package swarm

import "fmt"

func (s *Swarm) Debug() string {
	return fmt.Sprint(len(s.upload.backlog), " ", len(s.upload.pending), " ", len(s.upload.confirmed), " ", len(s.upload.first), " ", len(s.upload.queue), " ", s.upload.sending)
}
