-- Which node brought the first records of a collection; none for those that were made here or were there before this was kept.
ALTER TABLE bucket ADD COLUMN first_from uuid;
CREATE INDEX bucket_first_from ON bucket (first_from) WHERE first_from IS NOT NULL;
