-- A change of an interview under way, and events at Google that may differ from their interview until they are aligned.
CREATE TABLE ivs_change (
    interview_id bigint PRIMARY KEY REFERENCES company_interview (id) ON DELETE CASCADE,
    holder uuid,                  -- who changes or aligns it; nobody else may meanwhile
    aligning boolean NOT NULL DEFAULT false, -- by a sweep, which gives way to people
    held_until timestamptz NOT NULL,
    in_doubt_until timestamptz,   -- until then the event may come to differ from the interview; NULL: it does not
    next_attempt_at timestamptz NOT NULL, -- of aligning the event with the row
    attempts integer NOT NULL DEFAULT 0
);
CREATE INDEX ivs_change_next ON ivs_change (next_attempt_at);

-- Whose grant has died; they are told once, and until they connect again.
CREATE TABLE ivs_dead_grant (
    user_id bigint PRIMARY KEY REFERENCES users_user (id) ON DELETE CASCADE,
    died_at timestamptz NOT NULL
);

-- The start that a reminder is about: a mail about another one is dropped.
ALTER TABLE ivs_mail ADD COLUMN starts_at timestamptz;
