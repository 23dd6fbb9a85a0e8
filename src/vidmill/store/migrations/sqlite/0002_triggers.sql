-- Counters of flows, user flows and tenants, and the ledger's lines, kept here and nowhere else.
-- A job counts as queued in exactly one flow; what a job is counted under never changes.
-- SQLite does not promise in which order triggers fire: each is complete in itself.

CREATE TRIGGER jobs_identity
BEFORE UPDATE OF id, public_id, tenant_id, user_id, pool, lane, est_cost_s, price_credits, cache_key ON jobs
BEGIN
  SELECT RAISE(ABORT, 'a job keeps its id, owner, pool, lane, cost and price');
END;

CREATE TRIGGER jobs_terminal BEFORE UPDATE OF state, attempt, worker, result, error_code, error_message, finished_at, files_of ON jobs
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled')
BEGIN
  SELECT RAISE(ABORT, 'a finished job never changes');
END;

CREATE TRIGGER jobs_moves BEFORE UPDATE OF state ON jobs
WHEN OLD.state <> NEW.state AND NOT (
     OLD.state = 'queued' AND NEW.state IN ('running', 'cancelled')
  OR OLD.state = 'delayed' AND NEW.state IN ('queued', 'cancelled')
  OR OLD.state = 'following' AND NEW.state IN ('queued', 'succeeded', 'failed', 'cancelled')
  OR OLD.state = 'running' AND NEW.state IN ('succeeded', 'review', 'failed', 'delayed', 'cancelled', 'queued')
  OR OLD.state = 'review' AND NEW.state IN ('succeeded', 'failed'))
BEGIN
  SELECT RAISE(ABORT, 'a job does not move so');
END;

CREATE TRIGGER jobs_born BEFORE INSERT ON jobs
WHEN NOT (
     NEW.state IN ('queued', 'delayed')
  OR NEW.state = 'following' AND NEW.leader_id IS NOT NULL
  OR NEW.state = 'succeeded' AND NEW.files_of IS NOT NULL AND NEW.result IS NOT NULL AND NEW.finished_at IS NOT NULL)
BEGIN
  SELECT RAISE(ABORT, 'a job begins queued, delayed, following, or answered by another''s files');
END;

CREATE TRIGGER jobs_queued_insert AFTER INSERT ON jobs
WHEN NEW.state = 'queued'
BEGIN
  INSERT INTO user_flows (pool, lane, tenant_id, user_id, queued, queued_cost_s, head_at)
    VALUES (NEW.pool, NEW.lane, NEW.tenant_id, NEW.user_id, 1, NEW.est_cost_s, NEW.submitted_at)
    ON CONFLICT (pool, lane, tenant_id, user_id) DO UPDATE SET
      queued = queued + 1,
      queued_cost_s = queued_cost_s + NEW.est_cost_s,
      head_at = coalesce(head_at, NEW.submitted_at);
  INSERT INTO flows (pool, lane, tenant_id, queued, queued_cost_s, head_at)
    VALUES (NEW.pool, NEW.lane, NEW.tenant_id, 1, NEW.est_cost_s, NEW.submitted_at)
    ON CONFLICT (pool, lane, tenant_id) DO UPDATE SET
      queued = queued + 1,
      queued_cost_s = queued_cost_s + NEW.est_cost_s,
      head_at = (SELECT min(head_at) FROM user_flows
                  WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id AND queued > 0);
  UPDATE tenants SET queued = queued + 1 WHERE id = NEW.tenant_id;
END;

CREATE TRIGGER jobs_enter_queue AFTER UPDATE OF state ON jobs
WHEN NEW.state = 'queued' AND OLD.state <> 'queued'
BEGIN
  INSERT INTO flows (pool, lane, tenant_id, queued, queued_cost_s)
    VALUES (NEW.pool, NEW.lane, NEW.tenant_id, 1, NEW.est_cost_s)
    ON CONFLICT (pool, lane, tenant_id) DO UPDATE SET
      queued = queued + 1,
      queued_cost_s = queued_cost_s + NEW.est_cost_s;
  INSERT INTO user_flows (pool, lane, tenant_id, user_id, queued, queued_cost_s)
    VALUES (NEW.pool, NEW.lane, NEW.tenant_id, NEW.user_id, 1, NEW.est_cost_s)
    ON CONFLICT (pool, lane, tenant_id, user_id) DO UPDATE SET
      queued = queued + 1,
      queued_cost_s = queued_cost_s + NEW.est_cost_s;
  UPDATE user_flows SET
      head_at = (SELECT submitted_at FROM jobs
                  WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id
                    AND user_id = NEW.user_id AND state = 'queued'
                  ORDER BY rank, id LIMIT 1)
    WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id AND user_id = NEW.user_id;
  UPDATE flows SET
      head_at = (SELECT min(head_at) FROM user_flows
                  WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id AND queued > 0)
    WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id;
END;

CREATE TRIGGER jobs_leave_queue AFTER UPDATE OF state ON jobs
WHEN OLD.state = 'queued' AND NEW.state <> 'queued'
BEGIN
  UPDATE flows SET
      queued = queued - 1,
      queued_cost_s = CASE WHEN queued = 1 THEN 0.0 ELSE queued_cost_s - OLD.est_cost_s END
    WHERE pool = OLD.pool AND lane = OLD.lane AND tenant_id = OLD.tenant_id;
  UPDATE user_flows SET
      queued = queued - 1,
      queued_cost_s = CASE WHEN queued = 1 THEN 0.0 ELSE queued_cost_s - OLD.est_cost_s END
    WHERE pool = OLD.pool AND lane = OLD.lane AND tenant_id = OLD.tenant_id AND user_id = OLD.user_id;
  UPDATE user_flows SET
      head_at = (SELECT submitted_at FROM jobs
                  WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id
                    AND user_id = NEW.user_id AND state = 'queued'
                  ORDER BY rank, id LIMIT 1)
    WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id AND user_id = NEW.user_id;
  UPDATE flows SET
      head_at = (SELECT min(head_at) FROM user_flows
                  WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id AND queued > 0)
    WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id;
END;

CREATE TRIGGER jobs_reordered AFTER UPDATE OF rank ON jobs
WHEN OLD.state = 'queued' AND NEW.state = 'queued' AND OLD.rank <> NEW.rank
BEGIN
  UPDATE user_flows SET
      head_at = (SELECT submitted_at FROM jobs
                  WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id
                    AND user_id = NEW.user_id AND state = 'queued'
                  ORDER BY rank, id LIMIT 1)
    WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id AND user_id = NEW.user_id;
  UPDATE flows SET
      head_at = (SELECT min(head_at) FROM user_flows
                  WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id AND queued > 0)
    WHERE pool = NEW.pool AND lane = NEW.lane AND tenant_id = NEW.tenant_id;
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

CREATE TRIGGER jobs_hold AFTER INSERT ON jobs
BEGIN
  INSERT INTO ledger (job_id, entry, public_id, tenant_id, user_id, credits, at)
    VALUES (NEW.id, 'hold', NEW.public_id, NEW.tenant_id, NEW.user_id, NEW.price_credits, NEW.submitted_at);
END;

CREATE TRIGGER jobs_answered AFTER INSERT ON jobs
WHEN NEW.state = 'succeeded'
BEGIN
  INSERT INTO ledger (job_id, entry, public_id, tenant_id, user_id, credits, at)
    VALUES (NEW.id, 'capture', NEW.public_id, NEW.tenant_id, NEW.user_id, NEW.price_credits, NEW.finished_at);
END;

CREATE TRIGGER jobs_closed AFTER UPDATE OF state ON jobs
WHEN OLD.state <> NEW.state AND NEW.state IN ('succeeded', 'failed', 'cancelled')
BEGIN
  INSERT INTO ledger (job_id, entry, public_id, tenant_id, user_id, credits, at)
    VALUES (NEW.id, CASE WHEN NEW.state = 'succeeded' THEN 'capture' ELSE 'release' END, NEW.public_id,
            NEW.tenant_id, NEW.user_id, NEW.price_credits, coalesce(NEW.finished_at, NEW.submitted_at));
END;

CREATE TRIGGER ledger_kept BEFORE DELETE ON ledger
BEGIN
  SELECT RAISE(ABORT, 'the ledger is append-only');
END;

CREATE TRIGGER ledger_fixed BEFORE UPDATE ON ledger
BEGIN
  SELECT RAISE(ABORT, 'the ledger is append-only');
END;

CREATE TRIGGER jobs_kept BEFORE DELETE ON jobs
WHEN OLD.state NOT IN ('succeeded', 'failed', 'cancelled')
BEGIN
  SELECT RAISE(ABORT, 'a live job is never deleted');
END;
