-- What each record costs on its way in. One index finds a row by its id, whatever its bucket, and tells buckets apart; events
-- are kept as the text that is sent, which nothing here looks into.

ALTER TABLE author DROP CONSTRAINT author_pkey, ADD PRIMARY KEY (id, bucket_no);
ALTER TABLE media DROP CONSTRAINT media_pkey, ADD PRIMARY KEY (id, bucket_no);
ALTER TABLE category DROP CONSTRAINT category_pkey, ADD PRIMARY KEY (id, bucket_no);
ALTER TABLE collection DROP CONSTRAINT collection_pkey, ADD PRIMARY KEY (id, bucket_no);
DROP INDEX author_by_id;
DROP INDEX media_by_id;
DROP INDEX category_by_id;
DROP INDEX collection_by_id;

ALTER TABLE outbox ALTER COLUMN data TYPE json;
ALTER TABLE outbox_refused ALTER COLUMN data TYPE json;
