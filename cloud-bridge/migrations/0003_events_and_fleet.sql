-- Events that are committed and not published yet. A lane is published by one process at a time, in order; all events
-- of one subject are in one lane.
CREATE TABLE outbox_lane (
    lane integer PRIMARY KEY,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO outbox_lane (lane) SELECT generate_series(0, 15);

CREATE TABLE outbox (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane integer NOT NULL,
    event_id uuid NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    kind text NOT NULL,
    bucket text,
    site text,
    priority text NOT NULL,
    traceparent text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    data jsonb NOT NULL
);
CREATE INDEX outbox_in_lane ON outbox (lane, no);

-- Events that the topic will never take, with its reason.
CREATE TABLE outbox_refused (
    event_id uuid NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    reason text NOT NULL,
    refused_at timestamptz NOT NULL DEFAULT now(),
    data jsonb NOT NULL
);

-- The fleet's certificate authority. Its key is not here. One row.
CREATE TABLE fleet_authority (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    certificate_pem text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE enrolment_token (
    -- SHA-256 of the secret part. The token itself is shown once and kept nowhere.
    hash bytea PRIMARY KEY,
    site text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    used_by uuid
);

CREATE TABLE node (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    site text NOT NULL,
    -- SHA-256 of the public key that was certified.
    key_fingerprint bytea NOT NULL,
    certificate_pem text NOT NULL,
    -- SHA-256 of the certificate's DER form: its id in AWS IoT, too.
    certificate_fingerprint bytea NOT NULL,
    enrolled_at timestamptz NOT NULL DEFAULT now(),
    -- No session is accepted from then on, whichever certificate of the node is shown.
    revoked_at timestamptz,
    last_session_at timestamptz,
    -- What AWS IoT should be told (register, revoke), or was told (registered, revoked).
    iot_state text NOT NULL CHECK (iot_state IN ('register', 'registered', 'revoke', 'revoked')),
    iot_attempts integer NOT NULL DEFAULT 0,
    iot_next_attempt_at timestamptz NOT NULL DEFAULT '-infinity',
    iot_error text
);
CREATE INDEX node_iot_open ON node (iot_next_attempt_at) WHERE iot_state IN ('register', 'revoke');
