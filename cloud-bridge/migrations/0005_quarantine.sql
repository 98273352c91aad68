-- How much of one node is set aside is looked up whenever more of it is.
CREATE INDEX quarantine_from ON quarantine (from_node);

-- When a record was last tried in vain: it waits behind those that were not.
ALTER TABLE quarantine ADD COLUMN tried_at timestamptz NOT NULL DEFAULT '-infinity';
DROP INDEX quarantine_due;
CREATE INDEX quarantine_due ON quarantine (tried_at, newest_stamp_ms);
