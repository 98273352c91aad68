-- Tombstones that every node with a lease has passed are forgotten.

-- Deletes that had arrived by then may be forgotten. Set before any of them is.
ALTER TABLE bridge ADD COLUMN collected_at timestamptz NOT NULL DEFAULT 'epoch';

-- How far each feed had come, now and then: rows up to `head` had arrived at `at`.
CREATE TABLE feed_mark (
    bucket_no integer NOT NULL,
    at timestamptz NOT NULL,
    head bigint NOT NULL,
    PRIMARY KEY (bucket_no, at)
);

CREATE INDEX record_deleted ON record (bucket_no, seq) WHERE deleted;

-- As of when the node has met whatever was here: what it says itself, or else when its last complete session began.
ALTER TABLE node ADD COLUMN in_step_at timestamptz;
-- Whether its version can say so, and reads all anew when its lease has run out.
ALTER TABLE node ADD COLUMN tells_standing boolean NOT NULL DEFAULT false;
