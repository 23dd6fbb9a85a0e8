-- The same rules as sqlite/0005_triggers.sql.

CREATE FUNCTION new_webhook_secret() RETURNS text LANGUAGE sql VOLATILE AS $$
  -- Three random UUIDs hold 366 random bits; the digest is 256 long.
  SELECT encode(sha256((gen_random_uuid()::text || gen_random_uuid() || gen_random_uuid())::bytea), 'hex')
$$;
--;;
CREATE FUNCTION new_message_id() RETURNS text LANGUAGE sql VOLATILE AS $$
  SELECT 'msg_' || replace(gen_random_uuid()::text, '-', '')
$$;
--;;
CREATE FUNCTION tenants_default_endpoint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO webhook_endpoints (public_id, tenant_id, events, secret, created_at, updated_at)
    VALUES ('default', NEW.id, '[]', new_webhook_secret(), NEW.created_at, NEW.created_at);
  RETURN NULL;
END $$;
--;;
CREATE TRIGGER tenants_default_endpoint AFTER INSERT ON tenants
FOR EACH ROW EXECUTE FUNCTION tenants_default_endpoint();
--;;
CREATE FUNCTION tell_webhooks(job jobs) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  task_type text := 't2v.task.' || CASE job.state WHEN 'succeeded' THEN 'completed' ELSE job.state END;
  video_type text := CASE job.state WHEN 'succeeded' THEN 'video.completed' ELSE 'video.failed' END;
  ended_at float8 := coalesce(job.finished_at, job.submitted_at);
BEGIN
  INSERT INTO webhook_deliveries (public_id, endpoint_id, tenant_id, type, subject, due_at, created_at)
    SELECT new_message_id(), w.endpoint_id, job.tenant_id, w.type, job.public_id, ended_at, ended_at
      FROM webhook_wants w
     WHERE w.tenant_id = job.tenant_id AND w.type IN (task_type, video_type);
  IF job.request ->> 'webhook_url' IS NOT NULL THEN
    INSERT INTO webhook_deliveries (public_id, endpoint_id, tenant_id, type, subject, url, due_at, created_at)
      SELECT new_message_id(), e.id, job.tenant_id, task_type, job.public_id, job.request ->> 'webhook_url',
             ended_at, ended_at
        FROM webhook_endpoints e
       WHERE e.tenant_id = job.tenant_id AND e.public_id = 'default';
  END IF;
END $$;
--;;
CREATE FUNCTION jobs_told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM tell_webhooks(NEW);
  RETURN NULL;
END $$;
--;;
CREATE TRIGGER jobs_told AFTER UPDATE OF state ON jobs
FOR EACH ROW WHEN (OLD.state <> NEW.state AND NEW.state IN ('succeeded', 'failed', 'cancelled'))
EXECUTE FUNCTION jobs_told();
--;;
CREATE TRIGGER jobs_told_at_once AFTER INSERT ON jobs
FOR EACH ROW WHEN (NEW.state = 'succeeded') EXECUTE FUNCTION jobs_told();
