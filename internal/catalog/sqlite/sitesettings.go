package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"freshet/internal/catalog"
)

// PutSiteSetting implements catalog.SiteSettings.
func (c *Catalog) PutSiteSetting(ctx context.Context, s catalog.SiteSetting, now time.Time) error {
	return c.update(ctx, fmt.Sprintf("put setting %q of site %q", s.Name, s.Site), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO site_settings (site, name, value, changed) VALUES ($1, $2, $3, $4)
			ON CONFLICT (site, name) DO UPDATE SET value = excluded.value, changed = excluded.changed`, s.Site, s.Name, s.Value, seconds(now))
		return err
	})
}

// SiteSettings implements catalog.SiteSettings.
func (c *Catalog) SiteSettings(ctx context.Context) ([]catalog.SiteSetting, error) {
	all, err := collect(ctx, c.read, func(row scanner) (s catalog.SiteSetting, err error) {
		err = row.Scan(&s.Site, &s.Name, &s.Value)
		return s, err
	}, `SELECT site, name, value FROM site_settings ORDER BY site, name`)
	if err != nil {
		return nil, fmt.Errorf("catalog: list settings of sites: %w", err)
	}
	return all, nil
}

// RemoveSiteSetting implements catalog.SiteSettings.
func (c *Catalog) RemoveSiteSetting(ctx context.Context, site, name string) error {
	return c.update(ctx, fmt.Sprintf("remove setting %q of site %q", name, site), func(tx *sql.Tx) error {
		return affected(tx.ExecContext(ctx, `DELETE FROM site_settings WHERE site = $1 AND name = $2`, site, name))
	})
}
