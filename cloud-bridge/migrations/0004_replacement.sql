-- A node that takes the place of another one: it gets what belongs to its site.

-- The node that a token's user replaces.
ALTER TABLE enrolment_token ADD COLUMN replaces uuid;

-- The node that this one replaces, and when all of its site was handed over.
ALTER TABLE node ADD COLUMN replaces uuid;
ALTER TABLE node ADD COLUMN site_handed_over_at timestamptz;
