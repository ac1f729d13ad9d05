-- Rows for the examples. Needs only Django's columns; run it on a database
-- made from django_tables.sql, before or after the server has added its own columns.
-- Password of every user: Passw0rd!x
INSERT INTO resume_skillcategory(id,name) VALUES (1,'General');
INSERT INTO users_user(id,password,last_login,is_superuser,username,is_staff,is_active,date_joined,first_name,last_name,email,is_recruiter,is_applicant,has_resume,has_company,is_deleted,deleted_at,created_at,updated_at)
SELECT id,'pbkdf2_sha256$1000$contractsalt0123456789$bb0H4lFL10+249dOvv9+JDn6dSJk4bNiLkzR17guNew=',NULL,false,u,false,act,now(),f,l,u||'@x.test',rec,NOT rec,NOT rec,comp,false,NULL,now(),now()
FROM (VALUES (101,'rita','Rita','Recruit',true,true,true),(102,'otto','Otto','Other',true,true,true),(103,'nora','Nora','Nocompany',true,false,true),
             (201,'carl','Carl','Candy',false,false,true),(202,'dana','','',false,false,true),(203,'ines','Ines','Inactive',false,false,false)) v(id,u,f,l,rec,comp,act);
INSERT INTO company_company(id,user_id,name,country,logo,cover_photo,created_at,updated_at) VALUES
 (11,101,'Acme','US','resume/images/default.jpg','resume/images/default.jpg',now(),now()),(12,102,'Other Inc','US','resume/images/default.jpg','resume/images/default.jpg',now(),now());
INSERT INTO job_job(id,user_id,company_id,title,hire_number,job_location_type,location,salary,salary_range,ideal_candidate,is_available,description,responsibilities,benefits,level,category_id,job_type,experience_levels,weekly_ranges,shifts,created_at,updated_at,job_creation_is_complete,questions_generation_progress) VALUES
 (21,101,11,'Software Engineer',1,'remote','US',35000,'30000-50000','',true,'','','','Beginner',1,'','','','',now(),now(),true,'{}'),
 (22,102,12,'Analyst',1,'remote','US',35000,'30000-50000','',true,'','','','Beginner',1,'','','','',now(),now(),true,'{}');
INSERT INTO job_application(id,user_id,job_id,quiz_score,matching_percentage,overall_match_percentage,has_completed_quiz,round_scores,total_scores,status,has_started,created_at,updated_at) VALUES
 (31,201,21,0,0,0,false,'{}','{}','pending',false,now(),now());
INSERT INTO job_shortlist(id,recruiter_id,candidate_id,job_id,shortlisted_at,created_at) VALUES (41,102,201,22,now(),now());
INSERT INTO company_interview(id,candidate_id,recruiter_id,interview_type,date,time,timezone,meeting_link,room_id,google_event_id,note,created_at,updated_at) VALUES
 (501,201,101,'google_meet','2030-01-15','14:00','America/New_York','https://meet.google.com/abc-defg-hij','ABCD1234','evt501','n',now(),now()),
 (502,201,102,'phone','2030-01-16','09:30','Asia/Tokyo','','ABCD1235',NULL,NULL,now(),now()),
 (503,201,NULL,'custom','2020-01-01','10:00','Mars/Phobos','https://meet.google.com/old-link-abc','ABCD1236','evt503','',now(),now());
SELECT setval(pg_get_serial_sequence(t,'id'),1000) FROM unnest(ARRAY['users_user','company_company','job_job','job_application','job_shortlist','company_interview','resume_skillcategory']) t;
