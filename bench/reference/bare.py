"""The ceiling: what the web framework does when it has nothing to do."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Clip(BaseModel):
    prompt: str
    resolution: str = "720p"
    duration: float = 5.0


@app.post("/v1/t2v/generate")
async def generate(clip: Clip) -> dict[str, Any]:
    return {"task_id": "t2v_0", "status": "queued", "resolution": clip.resolution}


@app.get("/v1/t2v/status")
async def status(task_id: str) -> dict[str, Any]:
    return {"task_id": task_id, "status": "queued", "progress": 0.0}
