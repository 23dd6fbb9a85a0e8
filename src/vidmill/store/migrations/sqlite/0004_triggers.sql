-- Deleting a clip gives nothing back: the day it was ordered on keeps its number.
CREATE TRIGGER jobs_erased AFTER DELETE ON jobs
WHEN OLD.files_of IS NULL AND OLD.state <> 'failed' AND (OLD.state <> 'cancelled' OR OLD.attempt > 0)
BEGIN
  INSERT INTO erased_clips (tenant_id, day, clips)
    VALUES (OLD.tenant_id, CAST(OLD.submitted_at / 86400 AS INTEGER), 1)
    ON CONFLICT (tenant_id, day) DO UPDATE SET clips = clips + 1;
END;
