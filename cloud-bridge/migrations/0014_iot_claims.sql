-- Until when one process tells AWS IoT of a node, and no other does. The row is not locked meanwhile: the node connects.
ALTER TABLE node ADD COLUMN iot_claimed_until timestamptz NOT NULL DEFAULT '-infinity';
