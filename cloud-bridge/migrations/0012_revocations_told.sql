-- Whether all nodes were told, by a record in the catalogue, that this one was revoked.
ALTER TABLE node ADD COLUMN revocation_told boolean NOT NULL DEFAULT false;
CREATE INDEX node_revocation_untold ON node (id) WHERE revoked_at IS NOT NULL AND NOT revocation_told;
