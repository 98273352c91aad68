-- The right to be forgotten: what was ordered, which content it is about, and who has told that it is done.

CREATE TABLE erasure (
    bucket_no integer NOT NULL, id uuid NOT NULL, stamp bigint NOT NULL, updated_at timestamptz NOT NULL,
    kind bigint, record uuid, blobs text[],
    -- When the bridge heard of it: nodes that were enrolled by then owe a receipt.
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket_no, id)
);
CREATE INDEX erasure_by_record ON erasure (record);
CREATE INDEX erasure_by_arrival ON erasure (received_at, id);

-- The blobs that erasures list. `removed_at`: its rows are gone, and its object was deleted once. `settled_at`: it was
-- deleted again after everything that was under way then has ended, or other records name the blob.
CREATE TABLE erased_blob (
    hash bytea NOT NULL,
    bucket_no integer NOT NULL,
    erasure uuid NOT NULL,
    removed_at timestamptz,
    settled_at timestamptz,
    PRIMARY KEY (hash, bucket_no, erasure)
);
CREATE INDEX erased_blob_open ON erased_blob (hash) WHERE settled_at IS NULL;
CREATE INDEX erased_blob_of ON erased_blob (bucket_no, erasure);

-- Blobs that a record named once and does not any more: its content, too, when it is erased.
CREATE TABLE unnamed_blob (
    bucket_no integer NOT NULL,
    kind integer NOT NULL,
    id uuid NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (bucket_no, kind, id, hash)
);

CREATE TABLE erasure_receipt (
    bucket_no integer NOT NULL, id uuid NOT NULL, stamp bigint NOT NULL, updated_at timestamptz NOT NULL,
    erasure uuid, bucket text, incarnation bigint,
    PRIMARY KEY (bucket_no, id)
);
CREATE INDEX erasure_receipt_of ON erasure_receipt (erasure);

-- What shows a blob is looked for when one is erased.
CREATE INDEX collection_by_cover ON collection (cover) WHERE cover IS NOT NULL;
CREATE INDEX annotation_by_blob ON annotation (blob) WHERE blob IS NOT NULL;
