-- The invariants of the queue, valid on SQLite and PostgreSQL. Each query returns the rows that
-- break it. `:now` is the database's clock, `:patience_s` = lease + sweep + 5 s.

-- I1 every job ever accepted is in exactly one known state, and was charged a hold when it came
SELECT j.public_id, j.state FROM jobs j LEFT JOIN ledger l ON l.job_id = j.id AND l.entry = 'hold'
 WHERE l.job_id IS NULL OR j.state NOT IN ('queued', 'delayed', 'following', 'running', 'review',
                                           'succeeded', 'failed', 'cancelled');

-- I1 no line of the ledger is about a job nobody knows
SELECT l.public_id, l.entry FROM ledger l LEFT JOIN jobs j ON j.id = l.job_id WHERE j.id IS NULL;

-- I2 succeeded = one capture, failed or cancelled = one release, anything else = neither
SELECT j.public_id, j.state, count(l.job_id) AS lines, min(l.entry) AS entry
  FROM jobs j LEFT JOIN ledger l ON l.job_id = j.id AND l.entry IN ('capture', 'release')
 GROUP BY j.public_id, j.state
HAVING NOT ((j.state = 'succeeded' AND count(l.job_id) = 1 AND min(l.entry) = 'capture')
         OR (j.state IN ('failed', 'cancelled') AND count(l.job_id) = 1 AND min(l.entry) = 'release')
         OR (j.state NOT IN ('succeeded', 'failed', 'cancelled') AND count(l.job_id) = 0));

-- I2 every line is of the job's price
SELECT j.public_id, l.entry, l.credits, j.price_credits
  FROM ledger l JOIN jobs j ON j.id = l.job_id WHERE l.credits <> j.price_credits;

-- I3 runs are numbered 1 to n without a gap, n being the job's own count
SELECT j.public_id, j.attempt, count(a.attempt) AS runs, max(a.attempt) AS highest
  FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id
 GROUP BY j.public_id, j.attempt
HAVING count(a.attempt) <> j.attempt OR coalesce(max(a.attempt), 0) <> j.attempt;

-- I3 a job that succeeded did so in one run, its last, and no other job has a run that did
SELECT j.public_id, j.state, j.attempt, count(a.attempt) AS successes, max(a.attempt) AS successful
  FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id AND a.outcome = 'succeeded'
 WHERE j.files_of IS NULL
 GROUP BY j.public_id, j.state, j.attempt
HAVING (j.state = 'succeeded' AND (count(a.attempt) <> 1 OR max(a.attempt) <> j.attempt))
    OR (j.state <> 'succeeded' AND count(a.attempt) <> 0);

-- I3 a job that is over has no run that goes on, a running one has just one
SELECT j.public_id, j.state, count(a.attempt) AS open_runs
  FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id AND a.outcome IS NULL
 GROUP BY j.public_id, j.state
HAVING count(a.attempt) <> CASE WHEN j.state = 'running' THEN 1 ELSE 0 END;

-- I4 no run goes on long after its lease
SELECT public_id, worker, lease_until FROM jobs
 WHERE state = 'running' AND lease_until < :now - :patience_s;

-- I5 the counters of tenants are what a recount says
SELECT t.id, t.queued, t.running FROM tenants t
 WHERE t.queued <> (SELECT count(*) FROM jobs j WHERE j.tenant_id = t.id AND j.state = 'queued')
    OR t.running <> (SELECT count(*) FROM jobs j WHERE j.tenant_id = t.id AND j.state = 'running');

-- I5 the counters of flows are what a recount says
SELECT f.pool, f.lane, f.tenant_id, f.queued FROM flows f
 WHERE f.queued <> (SELECT count(*) FROM jobs j WHERE j.state = 'queued' AND j.pool = f.pool
                       AND j.lane = f.lane AND j.tenant_id = f.tenant_id);

-- I5 the counters of users' flows are what a recount says
SELECT f.pool, f.lane, f.tenant_id, f.user_id, f.queued FROM user_flows f
 WHERE f.queued <> (SELECT count(*) FROM jobs j WHERE j.state = 'queued' AND j.pool = f.pool
                       AND j.lane = f.lane AND j.tenant_id = f.tenant_id
                       AND j.user_id = f.user_id);

-- I6 each end of a task is told to every endpoint that wanted it all along
SELECT j.public_id, j.state, w.endpoint_id, w.type
  FROM jobs j JOIN webhook_wants w ON w.tenant_id = j.tenant_id
  JOIN webhook_endpoints e ON e.id = w.endpoint_id AND e.updated_at <= j.submitted_at
 WHERE w.type = CASE j.state WHEN 'succeeded' THEN 't2v.task.completed'
                             WHEN 'failed' THEN 't2v.task.failed'
                             WHEN 'cancelled' THEN 't2v.task.cancelled' END
   AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d
                    WHERE d.subject = j.public_id AND d.endpoint_id = w.endpoint_id AND d.type = w.type);

-- I6 the URL of a task is told of its end
SELECT j.public_id, j.state FROM jobs j
 WHERE j.state IN ('succeeded', 'failed', 'cancelled') AND j.request ->> 'webhook_url' IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d
                    WHERE d.subject = j.public_id AND d.url = j.request ->> 'webhook_url');

-- I6 nobody is told the same thing twice under two names
SELECT endpoint_id, subject, type, count(*) FROM webhook_deliveries
 WHERE subject LIKE 't2v_%' GROUP BY endpoint_id, subject, type HAVING count(*) > 1;

-- I6 nobody is told of an end that is not so
SELECT d.public_id, d.type, j.state
  FROM webhook_deliveries d JOIN jobs j ON j.public_id = d.subject
 WHERE d.type LIKE 't2v.task.%'
   AND d.type <> 't2v.task.' || CASE j.state WHEN 'succeeded' THEN 'completed' ELSE j.state END;

-- I7 no run of a job begins before the one before it was ended
SELECT a.job_id, a.attempt, a.ended_at, b.started_at
  FROM attempts a JOIN attempts b ON b.job_id = a.job_id AND b.attempt = a.attempt + 1
 WHERE a.ended_at IS NULL OR a.ended_at > b.started_at;

-- I8 no tenant runs more than its cap
SELECT id, name, running, cap_running FROM tenants WHERE running > cap_running;
