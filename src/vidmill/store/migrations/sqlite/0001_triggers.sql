-- Counters of flows and tenants, kept here and nowhere else.
-- A job counts as queued in exactly one flow; what a job is counted under never changes.

CREATE TRIGGER jobs_identity BEFORE UPDATE OF id, public_id, tenant_id, pool, lane, est_cost_s ON jobs
BEGIN
  SELECT RAISE(ABORT, 'a job keeps its id, tenant, pool, lane and cost');
END;

CREATE TRIGGER jobs_terminal BEFORE UPDATE OF state, attempt, worker, result, error_code, error_message, finished_at ON jobs
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled')
BEGIN
  SELECT RAISE(ABORT, 'a finished job never changes');
END;

CREATE TRIGGER jobs_born BEFORE INSERT ON jobs
WHEN NEW.state NOT IN ('queued', 'delayed')
BEGIN
  SELECT RAISE(ABORT, 'a job begins queued or delayed');
END;

CREATE TRIGGER jobs_queued_insert AFTER INSERT ON jobs
WHEN NEW.state = 'queued'
BEGIN
  INSERT INTO flows (pool, lane, tenant_id, queued, queued_cost_s, head_at)
    VALUES (NEW.pool, NEW.lane, NEW.tenant_id, 1, NEW.est_cost_s, NEW.submitted_at)
    ON CONFLICT (pool, lane, tenant_id) DO UPDATE SET
      queued = queued + 1,
      queued_cost_s = queued_cost_s + NEW.est_cost_s,
      head_at = coalesce(head_at, NEW.submitted_at);
  UPDATE tenants SET queued = queued + 1 WHERE id = NEW.tenant_id;
END;

CREATE TRIGGER jobs_enter_queue AFTER UPDATE OF state ON jobs
WHEN NEW.state = 'queued' AND OLD.state <> 'queued'
BEGIN
  INSERT INTO flows (pool, lane, tenant_id, queued, queued_cost_s, head_at)
    VALUES (NEW.pool, NEW.lane, NEW.tenant_id, 1, NEW.est_cost_s, NEW.submitted_at)
    ON CONFLICT (pool, lane, tenant_id) DO UPDATE SET
      queued = queued + 1,
      queued_cost_s = queued_cost_s + NEW.est_cost_s,
      head_at = (SELECT submitted_at FROM jobs
                  WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id AND state = 'queued'
                  ORDER BY id LIMIT 1);
END;

CREATE TRIGGER jobs_leave_queue AFTER UPDATE OF state ON jobs
WHEN OLD.state = 'queued' AND NEW.state <> 'queued'
BEGIN
  UPDATE flows SET
      queued = queued - 1,
      queued_cost_s = CASE WHEN queued = 1 THEN 0.0 ELSE queued_cost_s - OLD.est_cost_s END,
      head_at = (SELECT submitted_at FROM jobs
                  WHERE pool = OLD.pool AND lane = OLD.lane AND tenant_id = OLD.tenant_id AND state = 'queued'
                  ORDER BY id LIMIT 1)
    WHERE pool = OLD.pool AND lane = OLD.lane AND tenant_id = OLD.tenant_id;
END;

CREATE TRIGGER jobs_count_tenant AFTER UPDATE OF state ON jobs
WHEN OLD.state <> NEW.state
  AND (OLD.state IN ('queued', 'running') OR NEW.state IN ('queued', 'running'))
BEGIN
  UPDATE tenants SET
      queued = queued + (NEW.state = 'queued') - (OLD.state = 'queued'),
      running = running + (NEW.state = 'running') - (OLD.state = 'running')
    WHERE id = NEW.tenant_id;
END;

CREATE TRIGGER jobs_kept BEFORE DELETE ON jobs
WHEN OLD.state NOT IN ('succeeded', 'failed', 'cancelled')
BEGIN
  SELECT RAISE(ABORT, 'a live job is never deleted');
END;
