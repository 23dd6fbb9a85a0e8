-- A paused batch's jobs go from queued to delayed, and each row of a batch learns how its job ended.

CREATE TRIGGER jobs_moves BEFORE UPDATE OF state ON jobs
WHEN OLD.state <> NEW.state AND NOT (
     OLD.state = 'queued' AND NEW.state IN ('running', 'delayed', 'cancelled')
  OR OLD.state = 'delayed' AND NEW.state IN ('queued', 'cancelled')
  OR OLD.state = 'following' AND NEW.state IN ('queued', 'succeeded', 'failed', 'cancelled')
  OR OLD.state = 'running' AND NEW.state IN ('succeeded', 'review', 'failed', 'delayed', 'cancelled', 'queued')
  OR OLD.state = 'review' AND NEW.state IN ('succeeded', 'failed'))
BEGIN
  SELECT RAISE(ABORT, 'a job does not move so');
END;

CREATE TRIGGER jobs_of_batch AFTER UPDATE OF state ON jobs
WHEN OLD.state <> NEW.state AND NEW.state IN ('succeeded', 'failed', 'cancelled')
BEGIN
  UPDATE batch_rows SET state = NEW.state WHERE job_id = NEW.id;
END;
