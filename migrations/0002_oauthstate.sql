-- The PKCE code verifier of an authorization under way, sealed.
ALTER TABLE company_oauthstate ADD COLUMN IF NOT EXISTS code_verifier text;
ALTER TABLE company_oauthstate ALTER COLUMN code_verifier DROP NOT NULL;
