-- When a mail that waits is to be sent; NULL: at once.
ALTER TABLE ivs_mail ADD COLUMN due_at timestamptz;

-- The invitations and updates that recruiters have caused within a day: counted before anything is done, taken back when
-- nothing comes of it. It knows people by their ids alone, and forgets them after a day.
CREATE TABLE ivs_counted_mail (
    id uuid PRIMARY KEY,             -- of the request's intent
    recruiter_id bigint NOT NULL,
    candidate_id bigint NOT NULL,
    is_invitation boolean NOT NULL,  -- the first mail about an interview
    counted_at timestamptz NOT NULL
);
CREATE INDEX ivs_counted_mail_pair ON ivs_counted_mail (recruiter_id, candidate_id, counted_at);
CREATE INDEX ivs_counted_mail_invitation ON ivs_counted_mail (recruiter_id, counted_at) WHERE is_invitation;
CREATE INDEX ivs_counted_mail_counted ON ivs_counted_mail (counted_at);
