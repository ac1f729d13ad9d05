-- What an interview knows beyond Django's columns. A later Django may have added some of these itself: they stay as
-- they are, except that Django's older code and this server must both be able to leave them out of an INSERT.
ALTER TABLE company_interview
    ADD COLUMN IF NOT EXISTS job_id bigint,
    ADD COLUMN IF NOT EXISTS job_title varchar(255),
    ADD COLUMN IF NOT EXISTS duration_minutes integer,
    ADD COLUMN IF NOT EXISTS calendar_invite_sent boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS portal_join_count integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS meeting_started_at timestamptz,
    ADD COLUMN IF NOT EXISTS meeting_ended_at timestamptz,
    ADD COLUMN IF NOT EXISTS reminder_24h_sent boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS reminder_1h_sent boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS cancelled_at timestamptz,
    ADD COLUMN IF NOT EXISTS cancellation_reason text,
    ADD COLUMN IF NOT EXISTS ical_uid varchar(255),
    ADD COLUMN IF NOT EXISTS ical_sequence integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS ical_organizer varchar(255),
    ADD COLUMN IF NOT EXISTS location varchar(255),
    ADD COLUMN IF NOT EXISTS starts_at timestamptz,
    ADD COLUMN IF NOT EXISTS starts_at_tzdb varchar(16),
    ADD COLUMN IF NOT EXISTS ends_at timestamptz;

DO $$
DECLARE
    change text;
BEGIN
    FOR change IN
        SELECT CASE WHEN fallback IS NULL THEN format('ALTER COLUMN %I DROP NOT NULL', attname)
                    ELSE format('ALTER COLUMN %I SET DEFAULT %s', attname, fallback) END
        FROM (VALUES
            ('calendar_invite_sent', 'false'), ('portal_join_count', '0'), ('reminder_24h_sent', 'false'),
            ('reminder_1h_sent', 'false'), ('ical_sequence', '0'),
            ('job_id', NULL), ('job_title', NULL), ('duration_minutes', NULL), ('meeting_started_at', NULL),
            ('meeting_ended_at', NULL), ('cancelled_at', NULL), ('cancellation_reason', NULL), ('ical_uid', NULL),
            ('ical_organizer', NULL), ('location', NULL), ('starts_at', NULL), ('starts_at_tzdb', NULL),
            ('ends_at', NULL)
        ) AS ours (name, fallback)
        JOIN pg_attribute ON attrelid = 'company_interview'::regclass AND attname = name
        WHERE CASE WHEN fallback IS NULL THEN attnotnull ELSE NOT atthasdef END
    LOOP
        EXECUTE 'ALTER TABLE company_interview ' || change;
    END LOOP;
END
$$;
