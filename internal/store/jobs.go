package store

import (
	"context"
	"fmt"

	"freshet/internal/content"
	"freshet/internal/store/index"
)

// Job is what the agent keeps of a download over restarts.
type Job = index.Job

// PutJob notes a job, in the place of one with the same id. It survives a power cut.
func (s *Store) PutJob(ctx context.Context, j Job) error {
	if err := s.idx.PutJob(ctx, j); err != nil {
		return fmt.Errorf("store: put job %q: %w", j.ID, s.explain(err, int64(len(j.JSON))))
	}
	return nil
}

// Job returns one job. fs.ErrNotExist.
func (s *Store) Job(ctx context.Context, id string) (Job, error) {
	j, err := s.idx.Job(ctx, id)
	if err != nil {
		return Job{}, fmt.Errorf("store: job %q: %w", id, err)
	}
	return j, nil
}

// DeleteJob forgets a job; one that is not there is no error.
func (s *Store) DeleteJob(ctx context.Context, id string) error {
	if err := s.idx.DeleteJob(ctx, id); err != nil {
		return fmt.Errorf("store: delete job %q: %w", id, err)
	}
	return nil
}

// Jobs returns all jobs in the order of their ids.
func (s *Store) Jobs(ctx context.Context) ([]Job, error) {
	jobs, err := s.idx.Jobs(ctx)
	if err != nil {
		return nil, fmt.Errorf("store: jobs: %w", err)
	}
	return jobs, nil
}

// Ban says that a device is not asked for a content until a time.
type Ban = index.Ban

// Ban notes a ban; the later end of two holds.
func (s *Store) Ban(ctx context.Context, b Ban) error {
	if err := s.idx.Ban(ctx, b); err != nil {
		return fmt.Errorf("store: ban %q: %w", b.Device, err)
	}
	return nil
}

// Unban lifts a ban; one that is not there is no error.
func (s *Store) Unban(ctx context.Context, b Ban) error {
	if err := s.idx.Unban(ctx, b); err != nil {
		return fmt.Errorf("store: lift the ban of %q: %w", b.Device, err)
	}
	return nil
}

// Bans returns the bans of a content that have not ended, and forgets all that have.
func (s *Store) Bans(ctx context.Context, d content.Digest) ([]Ban, error) {
	bans, err := s.idx.Bans(ctx, d, s.now())
	if err != nil {
		return nil, fmt.Errorf("store: bans: %w", err)
	}
	return bans, nil
}
