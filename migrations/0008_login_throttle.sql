-- The sign-ins of the last 15 minutes that failed or whose password is being checked: whom from where, and when.
CREATE TABLE ivs_login_throttle (
    subject bytea PRIMARY KEY,       -- HMAC-SHA-256 of the peer and the e-mail, under SECRET_KEY
    attempts timestamptz[] NOT NULL  -- at most 20 that still count
);
