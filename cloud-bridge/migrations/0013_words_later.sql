-- Words to search in cost more than all the rest of a row. Where many records come in at once, they are made a moment later.

ALTER TABLE author ALTER COLUMN words DROP NOT NULL;
ALTER TABLE media ALTER COLUMN words DROP NOT NULL;
ALTER TABLE category ALTER COLUMN words DROP NOT NULL;
ALTER TABLE collection ALTER COLUMN words DROP NOT NULL;

-- Rows of one table whose words are still to be made: one row here for each statement that wrote some.
CREATE TABLE words_due (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind integer NOT NULL,
    ids uuid[] NOT NULL,
    due_since timestamptz NOT NULL DEFAULT clock_timestamp()
);
