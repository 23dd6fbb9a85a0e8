"""The floor: FastAPI, `task.delay`, Redis as broker and result store. Nothing durable, no keys."""

import os
from typing import Any

from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel

redis_url = os.environ["REDIS_URL"]
celery = Celery("floor", broker=redis_url, backend=redis_url)
app = FastAPI()


class Clip(BaseModel):
    prompt: str
    resolution: str = "720p"
    duration: float = 5.0


@celery.task(name="floor.render")  # type: ignore[untyped-decorator]
def render(prompt: str, resolution: str, duration: float) -> dict[str, str]:
    return {"video_url": f"unused://{prompt}/{resolution}/{duration}"}


@app.post("/v1/t2v/generate")
def generate(clip: Clip) -> dict[str, Any]:
    sent = render.delay(clip.prompt, clip.resolution, clip.duration)
    return {"task_id": sent.id, "status": "submitted"}


@app.get("/v1/t2v/status")
def status(task_id: str) -> dict[str, Any]:
    return {"task_id": task_id, "status": celery.AsyncResult(task_id).state}
