-- +goose Up
-- Digests and ids are lower-case hex, times Unix seconds (0: never), names as checked by the services.

CREATE TABLE contents (
  id              TEXT   NOT NULL,
  version         BIGINT NOT NULL,
  generation      BIGINT NOT NULL,
  manifest_digest TEXT   NOT NULL,
  hash_of_hashes  TEXT   NOT NULL,
  size            BIGINT NOT NULL,
  files           BIGINT NOT NULL,
  metadata_size   BIGINT NOT NULL,
  published       BIGINT NOT NULL,
  recalled        BIGINT NOT NULL,
  PRIMARY KEY (id, version)
);

CREATE INDEX contents_by_bytes ON contents (hash_of_hashes);

CREATE TABLE content_groups (
  id         TEXT   NOT NULL,
  version    BIGINT NOT NULL,
  group_name TEXT   NOT NULL,
  PRIMARY KEY (id, version, group_name),
  FOREIGN KEY (id, version) REFERENCES contents (id, version)
);
CREATE INDEX content_groups_by_group ON content_groups (group_name);

CREATE TABLE content_origins (
  id       TEXT   NOT NULL,
  version  BIGINT NOT NULL,
  position BIGINT NOT NULL,
  url      TEXT   NOT NULL,
  device   TEXT   NOT NULL,
  PRIMARY KEY (id, version, url),
  FOREIGN KEY (id, version) REFERENCES contents (id, version)
);

CREATE TABLE used_tickets (
  nonce           TEXT   NOT NULL PRIMARY KEY,
  manifest_digest TEXT   NOT NULL,
  expires         BIGINT NOT NULL
);
CREATE INDEX used_tickets_by_expires ON used_tickets (expires);

CREATE TABLE sites (
  name TEXT NOT NULL PRIMARY KEY
);

CREATE TABLE site_prefixes (
  prefix TEXT NOT NULL PRIMARY KEY,
  site   TEXT NOT NULL REFERENCES sites (name)
);
CREATE INDEX site_prefixes_by_site ON site_prefixes (site);

CREATE TABLE fleet_groups (
  name    TEXT   NOT NULL PRIMARY KEY,
  created BIGINT NOT NULL
);

CREATE TABLE devices (
  id         TEXT   NOT NULL PRIMARY KEY,
  name       TEXT   NOT NULL,
  role       TEXT   NOT NULL,
  group_name TEXT   NOT NULL,
  public_key TEXT   NOT NULL,
  enrolled   BIGINT NOT NULL,
  renewed    BIGINT NOT NULL,
  revoked    BIGINT NOT NULL
);
CREATE INDEX devices_by_group ON devices (group_name, revoked);
CREATE INDEX devices_by_revoked ON devices (revoked);

CREATE TABLE tokens (
  secret     TEXT   NOT NULL PRIMARY KEY,
  id         TEXT   NOT NULL UNIQUE,
  kind       TEXT   NOT NULL,
  group_name TEXT   NOT NULL,
  created    BIGINT NOT NULL,
  expires    BIGINT NOT NULL,
  uses_left  BIGINT NOT NULL
);

CREATE TABLE settings (
  name    TEXT   NOT NULL PRIMARY KEY,
  value   TEXT   NOT NULL,
  changed BIGINT NOT NULL
);

CREATE TABLE reports (
  device   TEXT   NOT NULL,
  job      TEXT   NOT NULL,
  body     TEXT   NOT NULL,
  reported BIGINT NOT NULL,
  PRIMARY KEY (device, job)
);

-- +goose Down
DROP TABLE reports;
DROP TABLE settings;
DROP TABLE tokens;
DROP TABLE devices;
DROP TABLE fleet_groups;
DROP TABLE site_prefixes;
DROP TABLE sites;
DROP TABLE used_tickets;
DROP TABLE content_origins;
DROP TABLE content_groups;
DROP TABLE contents;
