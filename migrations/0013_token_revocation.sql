-- Whose Bearer tokens an operator has ended: those issued before the moment, and those that do not say when.
CREATE TABLE ivs_token_revocation (
    user_id bigint PRIMARY KEY REFERENCES users_user (id) ON DELETE CASCADE,
    issued_before timestamptz NOT NULL -- a whole second, as in tokens
);
