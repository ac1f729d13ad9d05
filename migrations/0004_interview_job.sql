-- The name is the one Django would choose for a field `job`. A foreign key that is already there stays, whatever its
-- name. NOT VALID: the rows are checked by the next migration, which does not keep anybody from writing meanwhile.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_constraint
        JOIN pg_attribute ON attrelid = conrelid AND conkey = ARRAY[attnum]
        WHERE contype = 'f' AND conrelid = 'company_interview'::regclass AND attname = 'job_id'
    ) THEN
        ALTER TABLE company_interview ADD CONSTRAINT company_interview_job_id_51519e0d_fk_job_job_id
            FOREIGN KEY (job_id) REFERENCES job_job (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED NOT VALID;
    END IF;
END
$$;
