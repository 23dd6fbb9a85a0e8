-- The same rules as sqlite/0002_triggers.sql, trigger for trigger. Whoever holds several rows took them
-- in the order job, tenant, flow, user flow, so that no two transactions wait for each other.

ALTER TABLE jobs SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
--;;
ALTER TABLE flows SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
--;;
ALTER TABLE user_flows SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
--;;
ALTER TABLE tenants SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
--;;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation';
END $$;
--;;
CREATE TRIGGER jobs_identity
BEFORE UPDATE OF id, public_id, tenant_id, user_id, pool, lane, est_cost_s, price_credits, cache_key ON jobs
FOR EACH ROW EXECUTE FUNCTION refuse('a job keeps its id, owner, pool, lane, cost and price');
--;;
CREATE TRIGGER jobs_terminal
BEFORE UPDATE OF state, attempt, worker, result, error_code, error_message, finished_at, files_of ON jobs
FOR EACH ROW WHEN (OLD.state IN ('succeeded', 'failed', 'cancelled'))
EXECUTE FUNCTION refuse('a finished job never changes');
--;;
CREATE TRIGGER jobs_moves BEFORE UPDATE OF state ON jobs
FOR EACH ROW WHEN (OLD.state <> NEW.state AND NOT (
     OLD.state = 'queued' AND NEW.state IN ('running', 'cancelled')
  OR OLD.state = 'delayed' AND NEW.state IN ('queued', 'cancelled')
  OR OLD.state = 'following' AND NEW.state IN ('queued', 'succeeded', 'failed', 'cancelled')
  OR OLD.state = 'running' AND NEW.state IN ('succeeded', 'review', 'failed', 'delayed', 'cancelled', 'queued')
  OR OLD.state = 'review' AND NEW.state IN ('succeeded', 'failed')))
EXECUTE FUNCTION refuse('a job does not move so');
--;;
CREATE TRIGGER jobs_born BEFORE INSERT ON jobs
FOR EACH ROW WHEN (NOT (
     NEW.state IN ('queued', 'delayed')
  OR NEW.state = 'following' AND NEW.leader_id IS NOT NULL
  OR NEW.state = 'succeeded' AND NEW.files_of IS NOT NULL AND NEW.result IS NOT NULL AND NEW.finished_at IS NOT NULL))
EXECUTE FUNCTION refuse('a job begins queued, delayed, following, or answered by another''s files');
--;;
CREATE TRIGGER jobs_kept BEFORE DELETE ON jobs
FOR EACH ROW WHEN (OLD.state NOT IN ('succeeded', 'failed', 'cancelled'))
EXECUTE FUNCTION refuse('a live job is never deleted');
--;;
CREATE TRIGGER ledger_fixed BEFORE UPDATE OR DELETE ON ledger
FOR EACH ROW EXECUTE FUNCTION refuse('the ledger is append-only');
--;;
CREATE TRIGGER ledger_whole BEFORE TRUNCATE ON ledger
FOR EACH STATEMENT EXECUTE FUNCTION refuse('the ledger is append-only');
--;;
CREATE FUNCTION set_heads(job jobs) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  UPDATE user_flows SET
      head_at = (SELECT submitted_at FROM jobs
                  WHERE pool = job.pool AND lane = job.lane AND tenant_id = job.tenant_id
                    AND user_id = job.user_id AND state = 'queued'
                  ORDER BY rank, id LIMIT 1)
    WHERE pool = job.pool AND lane = job.lane AND tenant_id = job.tenant_id AND user_id = job.user_id;
  UPDATE flows SET
      head_at = (SELECT min(head_at) FROM user_flows
                  WHERE pool = job.pool AND lane = job.lane AND tenant_id = job.tenant_id AND queued > 0)
    WHERE pool = job.pool AND lane = job.lane AND tenant_id = job.tenant_id;
END $$;
--;;
CREATE FUNCTION job_inserted(job jobs) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  flow_head float8;
  of_user int;
BEGIN
  UPDATE tenants SET queued = queued + 1 WHERE id = job.tenant_id;
  INSERT INTO flows AS f (pool, lane, tenant_id, queued, queued_cost_s)
    VALUES (job.pool, job.lane, job.tenant_id, 1, job.est_cost_s)
    ON CONFLICT (pool, lane, tenant_id) DO UPDATE SET
      queued = f.queued + 1,
      queued_cost_s = f.queued_cost_s + excluded.queued_cost_s
    RETURNING f.head_at INTO flow_head;
  INSERT INTO user_flows AS f (pool, lane, tenant_id, user_id, queued, queued_cost_s, head_at)
    VALUES (job.pool, job.lane, job.tenant_id, job.user_id, 1, job.est_cost_s, job.submitted_at)
    ON CONFLICT (pool, lane, tenant_id, user_id) DO UPDATE SET
      queued = f.queued + 1,
      queued_cost_s = f.queued_cost_s + excluded.queued_cost_s,
      head_at = coalesce(f.head_at, excluded.head_at)
    RETURNING f.queued INTO of_user;
  -- Only now, holding the flows: of two inserts at once the one with the lower id may come second,
  -- and a statement of its own sees what the other committed while this one waited.
  IF of_user > 1 THEN
    PERFORM set_heads(job) WHERE job.id =
      (SELECT id FROM jobs
        WHERE pool = job.pool AND lane = job.lane AND tenant_id = job.tenant_id
          AND user_id = job.user_id AND state = 'queued'
        ORDER BY rank, id LIMIT 1);
  ELSIF flow_head IS NULL OR flow_head > job.submitted_at THEN
    UPDATE flows SET head_at = job.submitted_at
      WHERE pool = job.pool AND lane = job.lane AND tenant_id = job.tenant_id;
  END IF;
END $$;
--;;
CREATE FUNCTION jobs_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  job jobs;
BEGIN
  IF (SELECT count(*) FROM added) = 1 THEN  -- most often; then a third of the work is enough
    SELECT * INTO job FROM added;
    IF job.state = 'queued' THEN
      PERFORM job_inserted(job);
    END IF;
    INSERT INTO ledger (job_id, entry, public_id, tenant_id, user_id, credits, at)
      VALUES (job.id, 'hold', job.public_id, job.tenant_id, job.user_id, job.price_credits, job.submitted_at);
    IF job.state = 'succeeded' THEN
      INSERT INTO ledger (job_id, entry, public_id, tenant_id, user_id, credits, at)
        VALUES (job.id, 'capture', job.public_id, job.tenant_id, job.user_id, job.price_credits, job.finished_at);
    END IF;
    RETURN NULL;
  END IF;
  -- Once per statement: 10,000 rows of one INSERT move each counter once.
  PERFORM FROM tenants WHERE id IN (SELECT tenant_id FROM added WHERE state = 'queued')
    ORDER BY id FOR NO KEY UPDATE;
  UPDATE tenants t SET queued = t.queued + a.n
    FROM (SELECT tenant_id, count(*) AS n FROM added WHERE state = 'queued'
           GROUP BY tenant_id ORDER BY tenant_id) a
   WHERE t.id = a.tenant_id;
  INSERT INTO flows AS f (pool, lane, tenant_id, queued, queued_cost_s)
    SELECT pool, lane, tenant_id, count(*), sum(est_cost_s)
      FROM added WHERE state = 'queued' GROUP BY pool, lane, tenant_id ORDER BY tenant_id, pool, lane
    ON CONFLICT (pool, lane, tenant_id) DO UPDATE SET
      queued = f.queued + excluded.queued,
      queued_cost_s = f.queued_cost_s + excluded.queued_cost_s;
  INSERT INTO user_flows AS f (pool, lane, tenant_id, user_id, queued, queued_cost_s)
    SELECT pool, lane, tenant_id, user_id, count(*), sum(est_cost_s)
      FROM added WHERE state = 'queued' GROUP BY pool, lane, tenant_id, user_id
      ORDER BY tenant_id, pool, lane, user_id
    ON CONFLICT (pool, lane, tenant_id, user_id) DO UPDATE SET
      queued = f.queued + excluded.queued,
      queued_cost_s = f.queued_cost_s + excluded.queued_cost_s;
  -- Only now, holding the flows: of two inserts at once the one with the lower id may come second,
  -- and a statement of its own sees what the other committed while this one waited.
  WITH heads AS (
    SELECT a.*, (SELECT j.submitted_at FROM jobs j
                  WHERE j.pool = a.pool AND j.lane = a.lane AND j.tenant_id = a.tenant_id
                    AND j.user_id = a.user_id AND j.state = 'queued'
                  ORDER BY j.rank, j.id LIMIT 1) AS head_at
      FROM (SELECT DISTINCT pool, lane, tenant_id, user_id FROM added WHERE state = 'queued') a)
  UPDATE user_flows f SET head_at = h.head_at FROM heads h
   WHERE f.pool = h.pool AND f.lane = h.lane AND f.tenant_id = h.tenant_id AND f.user_id = h.user_id
     AND f.head_at IS DISTINCT FROM h.head_at;
  WITH heads AS (
    SELECT a.*, (SELECT min(u.head_at) FROM user_flows u
                  WHERE u.pool = a.pool AND u.lane = a.lane AND u.tenant_id = a.tenant_id
                    AND u.queued > 0) AS head_at
      FROM (SELECT DISTINCT pool, lane, tenant_id FROM added WHERE state = 'queued') a)
  UPDATE flows f SET head_at = h.head_at FROM heads h
   WHERE f.pool = h.pool AND f.lane = h.lane AND f.tenant_id = h.tenant_id
     AND f.head_at IS DISTINCT FROM h.head_at;
  INSERT INTO ledger (job_id, entry, public_id, tenant_id, user_id, credits, at)
    SELECT id, 'hold', public_id, tenant_id, user_id, price_credits, submitted_at FROM added
    UNION ALL
    SELECT id, 'capture', public_id, tenant_id, user_id, price_credits, finished_at
      FROM added WHERE state = 'succeeded';
  RETURN NULL;
END $$;
--;;
CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION jobs_inserted();
--;;
CREATE FUNCTION jobs_moved() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  step int := (NEW.state = 'queued')::int - (OLD.state = 'queued')::int;
  is_over_cap boolean;
BEGIN
  IF OLD.state IN ('queued', 'running') OR NEW.state IN ('queued', 'running') THEN
    UPDATE tenants SET
        queued = queued + step,
        running = running + (NEW.state = 'running')::int - (OLD.state = 'running')::int
      WHERE id = NEW.tenant_id
      RETURNING running > cap_running INTO is_over_cap;
    IF is_over_cap AND NEW.state = 'running' THEN
      RAISE EXCEPTION 'the tenant runs as many jobs as it may' USING ERRCODE = 'serialization_failure';
    END IF;
  END IF;
  IF step <> 0 THEN
    INSERT INTO flows AS f (pool, lane, tenant_id, queued, queued_cost_s)
      VALUES (NEW.pool, NEW.lane, NEW.tenant_id, step, step * NEW.est_cost_s)
      ON CONFLICT (pool, lane, tenant_id) DO UPDATE SET
        queued = f.queued + step,
        queued_cost_s = CASE WHEN f.queued + step = 0 THEN 0 ELSE f.queued_cost_s + step * NEW.est_cost_s END;
    INSERT INTO user_flows AS f (pool, lane, tenant_id, user_id, queued, queued_cost_s)
      VALUES (NEW.pool, NEW.lane, NEW.tenant_id, NEW.user_id, step, step * NEW.est_cost_s)
      ON CONFLICT (pool, lane, tenant_id, user_id) DO UPDATE SET
        queued = f.queued + step,
        queued_cost_s = CASE WHEN f.queued + step = 0 THEN 0 ELSE f.queued_cost_s + step * NEW.est_cost_s END;
    PERFORM set_heads(NEW);
  END IF;
  IF NEW.state IN ('succeeded', 'failed', 'cancelled') THEN
    INSERT INTO ledger (job_id, entry, public_id, tenant_id, user_id, credits, at)
      VALUES (NEW.id, CASE WHEN NEW.state = 'succeeded' THEN 'capture' ELSE 'release' END, NEW.public_id,
              NEW.tenant_id, NEW.user_id, NEW.price_credits, coalesce(NEW.finished_at, NEW.submitted_at));
  END IF;
  RETURN NULL;
END $$;
--;;
CREATE TRIGGER jobs_moved AFTER UPDATE OF state ON jobs
FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION jobs_moved();
--;;
CREATE FUNCTION jobs_reordered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_heads(NEW);
  RETURN NULL;
END $$;
--;;
CREATE TRIGGER jobs_reordered AFTER UPDATE OF rank ON jobs
FOR EACH ROW WHEN (OLD.state = 'queued' AND NEW.state = 'queued' AND OLD.rank <> NEW.rank)
EXECUTE FUNCTION jobs_reordered();
