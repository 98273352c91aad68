-- A session looks up the buckets that every node reads, and its own site: not those of ten thousand others.
CREATE INDEX bucket_shared ON bucket (name) WHERE name NOT LIKE 'site/%';
