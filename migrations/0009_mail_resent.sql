-- An operator may send a mail once more: its day begins anew, and what happened first is kept.
ALTER TABLE ivs_mail ADD COLUMN resent_at timestamptz;
-- What is still to be sent, counted at every scrape of the metrics.
CREATE INDEX ivs_mail_queued ON ivs_mail (kind) WHERE state = 'queued';
