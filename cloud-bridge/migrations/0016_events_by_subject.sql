-- An erasure looks for the events that tell of what it erases. While the topic is away there may be millions.
CREATE INDEX outbox_subject ON outbox (subject);
CREATE INDEX outbox_refused_subject ON outbox_refused (subject);
