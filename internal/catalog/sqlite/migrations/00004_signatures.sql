-- +goose Up
-- signature: the publisher's minisign file, empty for none. owner: the distribution point that registered the
-- content for itself, zero for a publisher.

ALTER TABLE contents ADD COLUMN signature TEXT NOT NULL DEFAULT '';
ALTER TABLE contents ADD COLUMN owner TEXT NOT NULL DEFAULT '00000000000000000000000000000000';

-- What devices expect that the current manifest is not; the last word of each device.
CREATE TABLE expected_differs (
  id              TEXT   NOT NULL,
  version         BIGINT NOT NULL,
  device          TEXT   NOT NULL,
  manifest_digest TEXT   NOT NULL,
  metadata_hash   TEXT   NOT NULL,
  summary         TEXT   NOT NULL,
  reported        BIGINT NOT NULL,
  PRIMARY KEY (id, version, device),
  FOREIGN KEY (id, version) REFERENCES contents (id, version)
);

-- +goose Down
DROP TABLE expected_differs;
ALTER TABLE contents DROP COLUMN owner;
ALTER TABLE contents DROP COLUMN signature;
