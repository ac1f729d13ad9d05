-- What only this server keeps. Django knows nothing of these tables, so what refers to its rows goes with them:
-- every such reference has an index.

-- A scheduling request under way, from before its first effect until its interview is written.
CREATE TABLE ivs_intent (
    id uuid PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users_user (id) ON DELETE CASCADE,
    event_id text,               -- Google's event id, chosen before the call
    created_at timestamptz NOT NULL,
    undo_from timestamptz,       -- given up by a sweep or a failed request: it can no longer commit
    next_attempt_at timestamptz, -- of undoing it
    attempts integer NOT NULL DEFAULT 0
);
CREATE INDEX ivs_intent_user ON ivs_intent (user_id);
CREATE INDEX ivs_intent_created ON ivs_intent (created_at);

-- An Idempotency-Key: claimed by an intent, then bound to the interview that came of it.
CREATE TABLE ivs_idempotency_key (
    user_id bigint NOT NULL REFERENCES users_user (id) ON DELETE CASCADE,
    key_hash bytea NOT NULL,     -- SHA-256 of the header: keys are opaque
    fingerprint bytea NOT NULL,  -- SHA-256 of the endpoint and the parsed body
    intent_id uuid,
    interview_id bigint REFERENCES company_interview (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, key_hash)
);
CREATE INDEX ivs_idempotency_key_interview ON ivs_idempotency_key (interview_id);
CREATE INDEX ivs_idempotency_key_created ON ivs_idempotency_key (created_at);

-- The right of one person to open one interview's page without signing in.
CREATE TABLE ivs_portal_token (
    token_hash bytea PRIMARY KEY, -- SHA-256
    interview_id bigint NOT NULL REFERENCES company_interview (id) ON DELETE CASCADE,
    user_id bigint NOT NULL REFERENCES users_user (id) ON DELETE CASCADE,
    expires_at timestamptz NOT NULL
);
CREATE INDEX ivs_portal_token_interview ON ivs_portal_token (interview_id);
CREATE INDEX ivs_portal_token_user ON ivs_portal_token (user_id);
CREATE INDEX ivs_portal_token_expires ON ivs_portal_token (expires_at);

-- Who was in an interview, from when to when; at most one presence of a person is open.
CREATE TABLE ivs_presence (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    interview_id bigint NOT NULL REFERENCES company_interview (id) ON DELETE CASCADE,
    user_id bigint NOT NULL REFERENCES users_user (id) ON DELETE CASCADE,
    user_role text NOT NULL CHECK (user_role IN ('candidate', 'recruiter')),
    joined_at timestamptz NOT NULL,
    left_at timestamptz
);
CREATE INDEX ivs_presence_interview ON ivs_presence (interview_id, joined_at);
CREATE INDEX ivs_presence_user ON ivs_presence (user_id);
CREATE UNIQUE INDEX ivs_presence_open ON ivs_presence (interview_id, user_id) WHERE left_at IS NULL;

-- A mail, from the transaction that caused it until 90 days later. Its text is rendered when it is sent.
CREATE TABLE ivs_mail (
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    interview_id bigint REFERENCES company_interview (id) ON DELETE CASCADE,
    user_id bigint NOT NULL REFERENCES users_user (id) ON DELETE CASCADE,
    recipient text,              -- only where it is not the user's own address
    sequence integer NOT NULL,   -- of the interview when the mail was queued
    state text NOT NULL CHECK (state IN ('queued', 'sent', 'dropped', 'refused', 'expired')),
    attempts integer NOT NULL DEFAULT 0,
    leased_by uuid,
    leased_until timestamptz,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    error text
);
CREATE INDEX ivs_mail_interview ON ivs_mail (interview_id);
CREATE INDEX ivs_mail_user ON ivs_mail (user_id);
CREATE INDEX ivs_mail_created ON ivs_mail (created_at);

-- The one process that refreshes a person's Google grant at the moment.
CREATE TABLE ivs_grant_lease (
    user_id bigint PRIMARY KEY REFERENCES users_user (id) ON DELETE CASCADE,
    holder uuid NOT NULL,
    expires_at timestamptz NOT NULL
);
