-- Whoever ends a job tells the endpoints of its tenant by these, in the same transaction. A task's
-- own URL goes by the tenant's endpoint `default`, for its key.

CREATE TRIGGER tenants_default_endpoint AFTER INSERT ON tenants
BEGIN
  INSERT INTO webhook_endpoints (public_id, tenant_id, events, secret, created_at, updated_at)
    VALUES ('default', NEW.id, '[]', lower(hex(randomblob(32))), NEW.created_at, NEW.created_at);
END;

CREATE TRIGGER jobs_told AFTER UPDATE OF state ON jobs
WHEN OLD.state <> NEW.state AND NEW.state IN ('succeeded', 'failed', 'cancelled')
BEGIN
  INSERT INTO webhook_deliveries (public_id, endpoint_id, tenant_id, type, subject, due_at, created_at)
    SELECT 'msg_' || lower(hex(randomblob(16))), w.endpoint_id, NEW.tenant_id, w.type, NEW.public_id,
           coalesce(NEW.finished_at, NEW.submitted_at), coalesce(NEW.finished_at, NEW.submitted_at)
      FROM webhook_wants w
     WHERE w.tenant_id = NEW.tenant_id
       AND w.type IN (CASE NEW.state WHEN 'succeeded' THEN 't2v.task.completed' ELSE 't2v.task.' || NEW.state END,
                      CASE NEW.state WHEN 'succeeded' THEN 'video.completed' ELSE 'video.failed' END);
  INSERT INTO webhook_deliveries (public_id, endpoint_id, tenant_id, type, subject, url, due_at, created_at)
    SELECT 'msg_' || lower(hex(randomblob(16))), e.id, NEW.tenant_id,
           CASE NEW.state WHEN 'succeeded' THEN 't2v.task.completed' ELSE 't2v.task.' || NEW.state END,
           NEW.public_id, json_extract(NEW.request, '$.webhook_url'),
           coalesce(NEW.finished_at, NEW.submitted_at), coalesce(NEW.finished_at, NEW.submitted_at)
      FROM webhook_endpoints e
     WHERE e.tenant_id = NEW.tenant_id AND e.public_id = 'default'
       AND json_extract(NEW.request, '$.webhook_url') IS NOT NULL;
END;

CREATE TRIGGER jobs_told_at_once AFTER INSERT ON jobs
WHEN NEW.state = 'succeeded'
BEGIN
  INSERT INTO webhook_deliveries (public_id, endpoint_id, tenant_id, type, subject, due_at, created_at)
    SELECT 'msg_' || lower(hex(randomblob(16))), w.endpoint_id, NEW.tenant_id, w.type, NEW.public_id,
           NEW.finished_at, NEW.finished_at
      FROM webhook_wants w
     WHERE w.tenant_id = NEW.tenant_id AND w.type IN ('t2v.task.completed', 'video.completed');
  INSERT INTO webhook_deliveries (public_id, endpoint_id, tenant_id, type, subject, url, due_at, created_at)
    SELECT 'msg_' || lower(hex(randomblob(16))), e.id, NEW.tenant_id, 't2v.task.completed', NEW.public_id,
           json_extract(NEW.request, '$.webhook_url'), NEW.finished_at, NEW.finished_at
      FROM webhook_endpoints e
     WHERE e.tenant_id = NEW.tenant_id AND e.public_id = 'default'
       AND json_extract(NEW.request, '$.webhook_url') IS NOT NULL;
END;
