-- The same as sqlite/0006_triggers.sql. The row of a batch is locked last, after what `jobs_moved` locks;
-- triggers of one event fire in the order of their names.

CREATE TRIGGER jobs_moves BEFORE UPDATE OF state ON jobs
FOR EACH ROW WHEN (OLD.state <> NEW.state AND NOT (
     OLD.state = 'queued' AND NEW.state IN ('running', 'delayed', 'cancelled')
  OR OLD.state = 'delayed' AND NEW.state IN ('queued', 'cancelled')
  OR OLD.state = 'following' AND NEW.state IN ('queued', 'succeeded', 'failed', 'cancelled')
  OR OLD.state = 'running' AND NEW.state IN ('succeeded', 'review', 'failed', 'delayed', 'cancelled', 'queued')
  OR OLD.state = 'review' AND NEW.state IN ('succeeded', 'failed')))
EXECUTE FUNCTION refuse('a job does not move so');
--;;
CREATE FUNCTION jobs_of_batch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE batch_rows SET state = NEW.state WHERE job_id = NEW.id;
  RETURN NULL;
END $$;
--;;
CREATE TRIGGER jobs_of_batch AFTER UPDATE OF state ON jobs
FOR EACH ROW WHEN (OLD.state <> NEW.state AND NEW.state IN ('succeeded', 'failed', 'cancelled'))
EXECUTE FUNCTION jobs_of_batch();
