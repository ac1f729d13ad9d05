-- Where a notification leads to, relative to the frontend.
ALTER TABLE notifications_notification ADD COLUMN IF NOT EXISTS action_url varchar(255);
ALTER TABLE notifications_notification ALTER COLUMN action_url DROP NOT NULL;
