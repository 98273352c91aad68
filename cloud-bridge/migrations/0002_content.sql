-- Blobs: whole in S3, described here.

-- Written in one transaction once the object is complete in S3: whoever sees the row can read the object.
CREATE TABLE stored_blob (
    hash bytea PRIMARY KEY,
    size_bytes bigint NOT NULL,
    media_type text NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE manifest (
    blob bytea PRIMARY KEY REFERENCES stored_blob ON DELETE CASCADE,
    encoding bytea NOT NULL
);

-- Content that was removed by hand: not wanted again unless a record names it anew, and kept in S3 a while for those
-- who are reading it.
CREATE TABLE removed_blob (
    hash bytea PRIMARY KEY,
    removed_at timestamptz NOT NULL DEFAULT now(),
    object_deleted boolean NOT NULL DEFAULT false
);

-- Where content-defined chunks lie, so that a new version of a blob costs its difference.
CREATE TABLE chunk_place (
    chunk bytea PRIMARY KEY,
    blob bytea NOT NULL REFERENCES stored_blob ON DELETE CASCADE,
    offset_bytes bigint NOT NULL,
    len integer NOT NULL
);
CREATE INDEX chunk_place_by_blob ON chunk_place (blob);

-- A blob that is being received. `claim` is the fence: each begin takes the next one, and every write names it.
CREATE TABLE blob_upload (
    hash bytea PRIMARY KEY,
    manifest bytea NOT NULL,
    claim bigint NOT NULL,
    owner uuid NOT NULL,
    lease_until timestamptz NOT NULL,
    -- The multipart upload; null until its first part, and for blobs of one part.
    upload_id text,
    -- All parts are in S3 and the hash was right: only the end of the multipart upload is open.
    completing boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX blob_upload_stale ON blob_upload (updated_at);

CREATE TABLE blob_upload_part (
    hash bytea NOT NULL REFERENCES blob_upload ON DELETE CASCADE,
    part integer NOT NULL,
    etag text NOT NULL,
    -- The part's BLAKE3 chaining value: all parts' together make the blob's hash without reading it back.
    chaining_value bytea NOT NULL,
    PRIMARY KEY (hash, part)
);

-- Durable bytes of a part that is not full yet.
CREATE TABLE blob_upload_staged (
    hash bytea NOT NULL REFERENCES blob_upload ON DELETE CASCADE,
    start_byte bigint NOT NULL,
    end_byte bigint NOT NULL,
    object_key text NOT NULL,
    PRIMARY KEY (hash, start_byte)
);
