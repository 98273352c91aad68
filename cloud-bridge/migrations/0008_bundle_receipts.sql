-- What nodes said last, on sticks, of what they have: the next bundle for each starts there.
CREATE TABLE bundle_receipt (
    node uuid PRIMARY KEY,
    -- The latest life of the node that a stick has told of.
    epoch bigint NOT NULL,
    incarnation bigint NOT NULL,
    -- Its receipt as it came (docs/PROTOCOL.md, section 8), if there was one in this life. Who signed it was checked then.
    encoding bytea,
    received_at timestamptz NOT NULL DEFAULT now()
);
