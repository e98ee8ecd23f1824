-- +goose Up
-- Keys that seal LAN datagrams. Secrets are lower-case hex and stand here as they are: whoever
-- reads this database may take a group's keys.

CREATE TABLE lan_keys (
  id         TEXT   NOT NULL PRIMARY KEY,
  group_name TEXT   NOT NULL REFERENCES fleet_groups (name),
  secret     TEXT   NOT NULL,
  starts     BIGINT NOT NULL,
  revoked    BIGINT NOT NULL
);
CREATE INDEX lan_keys_by_group ON lan_keys (group_name, starts);

-- +goose Down
DROP TABLE lan_keys;
