-- Who is signed in on the portal's pages. A session ends with its time, or when the password is another one.
CREATE TABLE ivs_portal_session (
    token_hash bytea PRIMARY KEY,  -- SHA-256
    user_id bigint NOT NULL REFERENCES users_user (id) ON DELETE CASCADE,
    password_digest bytea NOT NULL, -- SHA-256 of the stored password hash
    expires_at timestamptz NOT NULL
);
CREATE INDEX ivs_portal_session_user ON ivs_portal_session (user_id);
CREATE INDEX ivs_portal_session_expires ON ivs_portal_session (expires_at);
