-- +goose Up
CREATE TABLE site_settings (
  site    TEXT   NOT NULL,
  name    TEXT   NOT NULL,
  value   TEXT   NOT NULL,
  changed BIGINT NOT NULL,
  PRIMARY KEY (site, name)
);

-- +goose Down
DROP TABLE site_settings;
