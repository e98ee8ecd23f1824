package index

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"time"

	"freshet/internal/content"
)

// Job is what the agent keeps of a download over restarts.
type Job struct {
	ID   string
	JSON []byte
}

// PutJob notes a job, in the place of one with the same id. It survives a power cut.
func (x *Index) PutJob(ctx context.Context, j Job) error {
	return x.hard(ctx, "INSERT OR REPLACE INTO jobs VALUES (?,?)", j.ID, j.JSON)
}

// Job returns one job. fs.ErrNotExist.
func (x *Index) Job(ctx context.Context, id string) (Job, error) {
	j := Job{ID: id}
	err := x.read.QueryRowContext(ctx, "SELECT json FROM jobs WHERE id = ?", id).Scan(&j.JSON)
	if errors.Is(err, sql.ErrNoRows) {
		err = fs.ErrNotExist
	}
	return j, err
}

// DeleteJob forgets a job; one that is not there is no error.
func (x *Index) DeleteJob(ctx context.Context, id string) error {
	return x.hard(ctx, "DELETE FROM jobs WHERE id = ?", id)
}

// Jobs returns all jobs in the order of their ids.
func (x *Index) Jobs(ctx context.Context) ([]Job, error) {
	rows, err := x.read.QueryContext(ctx, "SELECT id, json FROM jobs ORDER BY id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Job
	for rows.Next() {
		var j Job
		if err := rows.Scan(&j.ID, &j.JSON); err != nil {
			return nil, err
		}
		out = append(out, j)
	}
	return out, rows.Err()
}

// Ban says that a device is not asked for a content until a time.
type Ban struct {
	Device string         // hex id
	Digest content.Digest // of the manifest
	Until  time.Time      // to the second
}

// Ban notes a ban; the later end of two holds. It survives a power cut.
func (x *Index) Ban(ctx context.Context, b Ban) error {
	return x.hard(ctx, "INSERT INTO bans VALUES (?,?,?) ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
		b.Device, b.Digest[:], b.Until.Unix())
}

// Unban lifts a ban.
func (x *Index) Unban(ctx context.Context, b Ban) error {
	return x.hard(ctx, "DELETE FROM bans WHERE device = ? AND digest = ?", b.Device, b.Digest[:])
}

// Bans returns the bans of a content that have not ended, and forgets all that have.
func (x *Index) Bans(ctx context.Context, d content.Digest, now time.Time) ([]Ban, error) {
	if _, err := x.write.ExecContext(ctx, "DELETE FROM bans WHERE until <= ?", now.Unix()); err != nil {
		return nil, err
	}
	rows, err := x.read.QueryContext(ctx, "SELECT device, until FROM bans WHERE digest = ? ORDER BY device", d[:])
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Ban
	for rows.Next() {
		b := Ban{Digest: d}
		var until int64
		if err := rows.Scan(&b.Device, &until); err != nil {
			return nil, err
		}
		b.Until = time.Unix(until, 0)
		out = append(out, b)
	}
	return out, rows.Err()
}
