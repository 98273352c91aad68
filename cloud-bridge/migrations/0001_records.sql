-- Records, their feeds, and what SQL can ask about them.

-- All processes of the bridge are one replica. One row.
CREATE TABLE bridge (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    node_id uuid NOT NULL,
    epoch bigint NOT NULL,
    -- Which copy of the data this epoch belongs to: cluster, timeline and database. Another copy is another epoch.
    copy text NOT NULL,
    -- Each process takes the next one, so that no two ever write the same stamp.
    incarnation bigint NOT NULL DEFAULT 0
);

-- One row for each bucket: its sequencer. Locked last in every transaction that writes into the bucket, so that rows
-- become visible in the order of their numbers.
CREATE TABLE bucket (
    no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    head bigint NOT NULL DEFAULT 0
);
-- Nothing refers to it by a foreign key: buckets are never deleted, and the checks would share-lock the sequencers.

CREATE TABLE record (
    bucket_no integer NOT NULL,
    kind integer NOT NULL,
    id uuid NOT NULL,
    seq bigint NOT NULL,
    -- The peer that sent exactly this version, and its epoch then.
    arrived_from uuid,
    arrived_epoch bigint,
    deleted boolean NOT NULL,
    newest_stamp_ms bigint NOT NULL,
    encoding bytea NOT NULL,
    PRIMARY KEY (bucket_no, kind, id)
);
CREATE UNIQUE INDEX record_feed ON record (bucket_no, seq);

CREATE TABLE cursor (
    node uuid NOT NULL,
    bucket_no integer NOT NULL,
    epoch bigint NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (node, bucket_no)
);

CREATE TABLE quarantine (
    -- BLAKE3 over bucket and encoding: the same version is set aside once.
    digest bytea PRIMARY KEY,
    bucket_no integer NOT NULL,
    kind integer NOT NULL,
    id uuid NOT NULL,
    from_node uuid NOT NULL,
    newest_stamp_ms bigint NOT NULL,
    reason text NOT NULL,
    encoding bytea NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX quarantine_due ON quarantine (newest_stamp_ms);

-- The latest state of each kind that this version knows, one table each, written with the record. A hard delete takes
-- the row away. `stamp` is the newest write as HlcTime bits. Numbers are bigint throughout: what a peer sends may be larger than it should be.

CREATE TABLE author (
    bucket_no integer NOT NULL, id uuid NOT NULL, stamp bigint NOT NULL, updated_at timestamptz NOT NULL,
    name text, sort_name text, description text, portrait bytea, disabled boolean,
    words tsvector NOT NULL,
    PRIMARY KEY (bucket_no, id)
);
CREATE INDEX author_by_id ON author (id);
CREATE INDEX author_by_stamp ON author (stamp, id);
CREATE INDEX author_by_portrait ON author (portrait) WHERE portrait IS NOT NULL;
CREATE INDEX author_by_words ON author USING gin (words);

CREATE TABLE media (
    bucket_no integer NOT NULL, id uuid NOT NULL, stamp bigint NOT NULL, updated_at timestamptz NOT NULL,
    title text, media_kind text, description text, languages text[], publisher text, published text,
    duration_ms bigint, pages bigint, chapters jsonb, files jsonb, cover bytea, disabled boolean,
    words tsvector NOT NULL,
    PRIMARY KEY (bucket_no, id)
);
CREATE INDEX media_by_id ON media (id);
CREATE INDEX media_by_stamp ON media (stamp, id);
CREATE INDEX media_by_cover ON media (cover) WHERE cover IS NOT NULL;
CREATE INDEX media_by_files ON media USING gin (files jsonb_path_ops);
CREATE INDEX media_by_words ON media USING gin (words);

CREATE TABLE category (
    bucket_no integer NOT NULL, id uuid NOT NULL, stamp bigint NOT NULL, updated_at timestamptz NOT NULL,
    name text, description text, parent uuid, disabled boolean,
    words tsvector NOT NULL,
    PRIMARY KEY (bucket_no, id)
);
CREATE INDEX category_by_id ON category (id);
CREATE INDEX category_by_stamp ON category (stamp, id);
CREATE INDEX category_by_words ON category USING gin (words);

CREATE TABLE collection (
    bucket_no integer NOT NULL, id uuid NOT NULL, stamp bigint NOT NULL, updated_at timestamptz NOT NULL,
    title text, description text, cover bytea, disabled boolean,
    words tsvector NOT NULL,
    PRIMARY KEY (bucket_no, id)
);
CREATE INDEX collection_by_id ON collection (id);
CREATE INDEX collection_by_stamp ON collection (stamp, id);
CREATE INDEX collection_by_words ON collection USING gin (words);

-- The blobs that a bucket refers to. Whether one is stored here is said by stored_blob; `stored` is a hint that keeps
-- the search for wanted blobs short.
CREATE TABLE blob (
    bucket_no integer NOT NULL, id uuid NOT NULL, stamp bigint NOT NULL, updated_at timestamptz NOT NULL,
    hash bytea, size_bytes bigint, media_type text,
    stored boolean NOT NULL DEFAULT false,
    PRIMARY KEY (bucket_no, id)
);
CREATE INDEX blob_by_hash ON blob (hash);
CREATE INDEX blob_unstored ON blob (hash) WHERE NOT stored AND hash IS NOT NULL;

CREATE TABLE library_user (
    bucket_no integer NOT NULL, id uuid NOT NULL, stamp bigint NOT NULL, updated_at timestamptz NOT NULL,
    name text, role text, disabled boolean,
    PRIMARY KEY (bucket_no, id)
);

CREATE TABLE media_author (
    bucket_no integer NOT NULL, id uuid NOT NULL, stamp bigint NOT NULL, updated_at timestamptz NOT NULL,
    media uuid, author uuid, linked boolean,
    PRIMARY KEY (bucket_no, id)
);
CREATE INDEX media_author_by_media ON media_author (media);
CREATE INDEX media_author_by_author ON media_author (author);

CREATE TABLE media_category (
    bucket_no integer NOT NULL, id uuid NOT NULL, stamp bigint NOT NULL, updated_at timestamptz NOT NULL,
    media uuid, category uuid, linked boolean,
    PRIMARY KEY (bucket_no, id)
);
CREATE INDEX media_category_by_media ON media_category (media);
CREATE INDEX media_category_by_category ON media_category (category);

CREATE TABLE author_category (
    bucket_no integer NOT NULL, id uuid NOT NULL, stamp bigint NOT NULL, updated_at timestamptz NOT NULL,
    author uuid, category uuid, linked boolean,
    PRIMARY KEY (bucket_no, id)
);
CREATE INDEX author_category_by_author ON author_category (author);
CREATE INDEX author_category_by_category ON author_category (category);

CREATE TABLE annotation (
    bucket_no integer NOT NULL, id uuid NOT NULL, stamp bigint NOT NULL, updated_at timestamptz NOT NULL,
    media uuid, blob bytea, width_px bigint, height_px bigint, dominant_colours bigint[], placeholder text,
    perceptual_hash numeric, labels jsonb, model text,
    PRIMARY KEY (bucket_no, id)
);
CREATE INDEX annotation_by_media ON annotation (media);

CREATE TABLE open_count (
    bucket_no integer NOT NULL, id uuid NOT NULL, stamp bigint NOT NULL, updated_at timestamptz NOT NULL,
    media uuid, count numeric,
    PRIMARY KEY (bucket_no, id)
);
CREATE INDEX open_count_by_media ON open_count (media);

-- How often each medium was opened, over all counters.
CREATE TABLE popularity (
    media uuid PRIMARY KEY,
    opened numeric NOT NULL
);
CREATE INDEX popularity_by_opened ON popularity (opened, media);
