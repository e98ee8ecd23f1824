-- +goose Up
-- URLs as package api makes them normal. All rows of a URL have one id, as package sqlite sees to.

CREATE TABLE content_urls (
  url     TEXT   NOT NULL,
  id      TEXT   NOT NULL,
  version BIGINT NOT NULL,
  PRIMARY KEY (url, version),
  FOREIGN KEY (id, version) REFERENCES contents (id, version)
);
CREATE INDEX content_urls_by_content ON content_urls (id, version);

-- +goose Down
DROP TABLE content_urls;
