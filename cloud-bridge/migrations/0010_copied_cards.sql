-- What was read of a node's feeds, as its pages told it, so that a node that was set back to an older copy of itself, or runs twice, is
-- noticed: see alexandria_sync::lineage, which also says what the bytes are.
CREATE TABLE remembered (
    node uuid PRIMARY KEY,
    moments bytea NOT NULL
);
