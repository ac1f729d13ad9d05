DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = 'company_interview'::regclass AND conname = 'company_interview_job_id_51519e0d_fk_job_job_id'
          AND NOT convalidated
    ) THEN
        ALTER TABLE company_interview VALIDATE CONSTRAINT company_interview_job_id_51519e0d_fk_job_job_id;
    END IF;
END
$$;
