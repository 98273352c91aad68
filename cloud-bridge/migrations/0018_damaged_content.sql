-- Content whose object was found lost or damaged, until it is found sound or has come whole again.
CREATE TABLE damaged_blob (
    hash bytea PRIMARY KEY,
    -- The chunk that could not be given; null if it is the manifest or the object that is not as it was.
    chunk integer,
    what text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now(),
    -- Since when nodes are asked to send it again; null as long as nobody has said so.
    wanted_since timestamptz
);
