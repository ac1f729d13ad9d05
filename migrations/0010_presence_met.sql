-- Whether a recruiter who was there has met the candidate there, before or since: who has not has waited in vain.
ALTER TABLE ivs_presence ADD COLUMN met boolean NOT NULL DEFAULT false;
UPDATE ivs_presence p SET met = true
WHERE user_role = 'recruiter'
  AND EXISTS (SELECT FROM ivs_presence c WHERE c.interview_id = p.interview_id AND c.user_role = 'candidate');
CREATE INDEX ivs_presence_waited ON ivs_presence (user_id) WHERE user_role = 'recruiter' AND NOT met;
