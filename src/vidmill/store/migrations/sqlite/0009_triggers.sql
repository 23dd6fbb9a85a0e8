-- Each shot of a storyboard learns how its job ended.

CREATE TRIGGER jobs_of_storyboard AFTER UPDATE OF state ON jobs
WHEN OLD.state <> NEW.state AND NEW.state IN ('succeeded', 'failed', 'cancelled')
BEGIN
  UPDATE storyboard_shots SET state = NEW.state WHERE job_id = NEW.id;
END;
