-- Deleting a clip gives nothing back: the day it was ordered on keeps its number.
CREATE FUNCTION keep_erased() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO erased_clips AS e (tenant_id, day, clips)
    VALUES (OLD.tenant_id, floor(OLD.submitted_at / 86400)::int, 1)
    ON CONFLICT (tenant_id, day) DO UPDATE SET clips = e.clips + 1;
  RETURN NULL;
END $$;
--;;
CREATE TRIGGER jobs_erased AFTER DELETE ON jobs
FOR EACH ROW WHEN (OLD.files_of IS NULL AND OLD.state <> 'failed' AND (OLD.state <> 'cancelled' OR OLD.attempt > 0))
EXECUTE FUNCTION keep_erased();
