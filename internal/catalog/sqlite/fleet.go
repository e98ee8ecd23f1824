package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/wire"
)

// AddSite implements catalog.Sites.
func (c *Catalog) AddSite(ctx context.Context, s catalog.Site) error {
	return c.update(ctx, fmt.Sprintf("add site %q", s.Name), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO sites (name) VALUES ($1) ON CONFLICT (name) DO NOTHING`, s.Name); err != nil {
			return err
		}
		for _, p := range s.CIDRs {
			if err := addPrefix(ctx, tx, s.Name, p.Masked().String()); err != nil {
				return err
			}
		}
		return nil
	})
}

func addPrefix(ctx context.Context, tx *sql.Tx, site, prefix string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO site_prefixes (prefix, site) VALUES ($1, $2) ON CONFLICT (prefix) DO NOTHING`, prefix, site)
	if err != nil {
		return err
	}
	var owner string
	if err := tx.QueryRowContext(ctx, `SELECT site FROM site_prefixes WHERE prefix = $1`, prefix).Scan(&owner); err != nil {
		return err
	}
	if owner != site {
		return fmt.Errorf("prefix %s: %w at site %q", prefix, catalog.ErrExists, owner)
	}
	return nil
}

// Sites implements catalog.Sites.
func (c *Catalog) Sites(ctx context.Context) ([]catalog.Site, error) {
	type row struct{ site, prefix string }
	rows, err := collect(ctx, c.read, func(s scanner) (r row, err error) {
		err = s.Scan(&r.site, &r.prefix)
		return r, err
	}, `SELECT s.name, COALESCE(p.prefix, '') FROM sites s LEFT JOIN site_prefixes p ON p.site = s.name ORDER BY s.name, p.prefix`)
	if err != nil {
		return nil, fmt.Errorf("catalog: list sites: %w", err)
	}
	var all []catalog.Site
	for _, r := range rows {
		if len(all) == 0 || all[len(all)-1].Name != r.site {
			all = append(all, catalog.Site{Name: r.site})
		}
		if r.prefix == "" {
			continue
		}
		p, err := netip.ParsePrefix(r.prefix)
		if err != nil {
			return nil, fmt.Errorf("catalog: list sites: %w", err)
		}
		last := &all[len(all)-1]
		last.CIDRs = append(last.CIDRs, p)
	}
	return all, nil
}

// RemoveSite implements catalog.Sites.
func (c *Catalog) RemoveSite(ctx context.Context, name string) error {
	return c.update(ctx, fmt.Sprintf("remove site %q", name), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM site_prefixes WHERE site = $1`, name); err != nil {
			return err
		}
		return affected(tx.ExecContext(ctx, `DELETE FROM sites WHERE name = $1`, name))
	})
}

// groupQuery counts the devices of each group that may still act.
const groupQuery = `SELECT g.name, (SELECT COUNT(*) FROM devices d WHERE d.group_name = g.name AND d.revoked = 0) FROM fleet_groups g `

func scanGroup(row scanner) (g catalog.Group, err error) {
	err = notFound(row.Scan(&g.Name, &g.Devices))
	return g, err
}

// AddGroup implements catalog.Groups.
func (c *Catalog) AddGroup(ctx context.Context, name string, now time.Time) error {
	return c.update(ctx, fmt.Sprintf("add group %q", name), func(tx *sql.Tx) error {
		return fresh(tx.ExecContext(ctx, `INSERT INTO fleet_groups (name, created) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, name, seconds(now)))
	})
}

// Group implements catalog.Groups.
func (c *Catalog) Group(ctx context.Context, name string) (catalog.Group, error) {
	g, err := scanGroup(c.read.QueryRowContext(ctx, groupQuery+`WHERE g.name = $1`, name))
	if err != nil {
		return g, fmt.Errorf("catalog: group %q: %w", name, err)
	}
	return g, nil
}

// Groups implements catalog.Groups.
func (c *Catalog) Groups(ctx context.Context) ([]catalog.Group, error) {
	all, err := collect(ctx, c.read, scanGroup, groupQuery+`ORDER BY g.name`)
	if err != nil {
		return nil, fmt.Errorf("catalog: list groups: %w", err)
	}
	return all, nil
}

// RemoveGroup implements catalog.Groups.
func (c *Catalog) RemoveGroup(ctx context.Context, name string) error {
	return c.update(ctx, fmt.Sprintf("remove group %q", name), func(tx *sql.Tx) error {
		var used int
		err := tx.QueryRowContext(ctx, `SELECT (SELECT COUNT(*) FROM devices WHERE group_name = $1 AND revoked = 0)
			+ (SELECT COUNT(*) FROM content_groups WHERE group_name = $1)`, name).Scan(&used)
		if err != nil {
			return err
		}
		if used > 0 {
			return fmt.Errorf("%w by %d devices and contents", catalog.ErrInUse, used)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM lan_keys WHERE group_name = $1`, name); err != nil {
			return err
		}
		return affected(tx.ExecContext(ctx, `DELETE FROM fleet_groups WHERE name = $1`, name))
	})
}

const deviceColumns = `id, name, role, group_name, public_key, enrolled, renewed, revoked`

func scanDevice(row scanner) (catalog.Device, error) {
	var (
		d                          catalog.Device
		id, key                    string
		enrolled, renewed, revoked int64
	)
	err := row.Scan(&id, &d.Name, &d.Role, &d.Group, &key, &enrolled, &renewed, &revoked)
	if err != nil {
		return d, notFound(err)
	}
	d.Enrolled, d.Renewed, d.Revoked = instant(enrolled), instant(renewed), instant(revoked)
	if d.ID, err = wire.ParseDeviceID(id); err != nil {
		return d, err
	}
	d.Key, err = content.ParseDigest(key)
	return d, err
}

// AddDevice implements catalog.Devices.
func (c *Catalog) AddDevice(ctx context.Context, d catalog.Device) error {
	return c.update(ctx, fmt.Sprintf("add device %s", d.ID), func(tx *sql.Tx) error {
		return fresh(tx.ExecContext(ctx, `INSERT INTO devices (`+deviceColumns+`)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING`,
			d.ID.String(), d.Name, d.Role, d.Group, d.Key.String(), seconds(d.Enrolled), seconds(d.Renewed), seconds(d.Revoked)))
	})
}

// Device implements catalog.Devices.
func (c *Catalog) Device(ctx context.Context, id wire.DeviceID) (catalog.Device, error) {
	d, err := scanDevice(c.read.QueryRowContext(ctx, `SELECT `+deviceColumns+` FROM devices WHERE id = $1`, id.String()))
	if err != nil {
		return d, fmt.Errorf("catalog: device %s: %w", id, err)
	}
	return d, nil
}

// Devices implements catalog.Devices.
func (c *Catalog) Devices(ctx context.Context) ([]catalog.Device, error) {
	all, err := collect(ctx, c.read, scanDevice, `SELECT `+deviceColumns+` FROM devices ORDER BY enrolled, id`)
	if err != nil {
		return nil, fmt.Errorf("catalog: list devices: %w", err)
	}
	return all, nil
}

// RenewDevice implements catalog.Devices.
func (c *Catalog) RenewDevice(ctx context.Context, id wire.DeviceID, now time.Time) error {
	return c.update(ctx, fmt.Sprintf("renew device %s", id), func(tx *sql.Tx) error {
		return affected(tx.ExecContext(ctx, `UPDATE devices SET renewed = $2 WHERE id = $1 AND revoked = 0`, id.String(), seconds(now)))
	})
}

// RevokeDevice implements catalog.Devices. No two devices are revoked in the same second, and none
// before another that was: see Revoked.
func (c *Catalog) RevokeDevice(ctx context.Context, id wire.DeviceID, now time.Time) error {
	return c.update(ctx, fmt.Sprintf("revoke device %s", id), func(tx *sql.Tx) error {
		return affected(tx.ExecContext(ctx, `UPDATE devices
			SET revoked = CASE WHEN revoked = 0 THEN max($2, 1 + (SELECT max(revoked) FROM devices)) ELSE revoked END WHERE id = $1`,
			id.String(), seconds(now)))
	})
}

// Revoked implements catalog.DenyList. The version is the time of the last revocation in Unix
// seconds, so that the next one counts for those too who knew more of them before the catalog was
// restored from an old copy.
func (c *Catalog) Revoked(ctx context.Context) ([]wire.DeviceID, int64, error) {
	var version int64
	ids, err := collect(ctx, c.read, func(row scanner) (id wire.DeviceID, err error) {
		var s string
		var at int64
		if err = row.Scan(&s, &at); err != nil {
			return id, err
		}
		version = max(version, at)
		return wire.ParseDeviceID(s)
	}, `SELECT id, revoked FROM devices WHERE revoked > 0 ORDER BY id`)
	if err != nil {
		return nil, 0, fmt.Errorf("catalog: list revoked devices: %w", err)
	}
	return ids, version, nil
}

// AddReport implements catalog.Reports.
func (c *Catalog) AddReport(ctx context.Context, r catalog.Report) error {
	return c.update(ctx, fmt.Sprintf("add report %q of device %s", r.Job, r.Device), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO reports (device, job, body, reported) VALUES ($1, $2, $3, $4)
			ON CONFLICT (device, job) DO NOTHING`, r.Device.String(), r.Job, string(r.Body), seconds(r.At))
		return err
	})
}

// Reports implements catalog.Reports.
func (c *Catalog) Reports(ctx context.Context, device wire.DeviceID) ([]catalog.Report, error) {
	all, err := collect(ctx, c.read, func(row scanner) (catalog.Report, error) {
		r := catalog.Report{Device: device}
		var body string
		var at int64
		err := row.Scan(&r.Job, &body, &at)
		r.Body, r.At = []byte(body), instant(at)
		return r, err
	}, `SELECT job, body, reported FROM reports WHERE device = $1 ORDER BY reported, job`, device.String())
	if err != nil {
		return nil, fmt.Errorf("catalog: reports of device %s: %w", device, err)
	}
	return slices.Clip(all), nil
}
