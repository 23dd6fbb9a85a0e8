-- The same as sqlite/0009_triggers.sql. The row of a shot is locked after that of a batch;
-- triggers of one event fire in the order of their names.

CREATE FUNCTION jobs_of_storyboard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE storyboard_shots SET state = NEW.state WHERE job_id = NEW.id;
  RETURN NULL;
END $$;
--;;
CREATE TRIGGER jobs_of_storyboard AFTER UPDATE OF state ON jobs
FOR EACH ROW WHEN (OLD.state <> NEW.state AND NEW.state IN ('succeeded', 'failed', 'cancelled'))
EXECUTE FUNCTION jobs_of_storyboard();
