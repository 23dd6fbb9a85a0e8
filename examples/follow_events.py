"""Follows a task by its events; stopped and begun again, it goes on where it was.

python follow_events.py t2v_... [id of the last event you saw]
"""

import sys

from vidmill.client import Vidmill

if __name__ == "__main__":
    task_id, *last = sys.argv[1:]
    with Vidmill() as vidmill:
        for event in vidmill.events(task_id, after=last[0] if last else ""):
            print(event.id, event.type, f"{event.task.progress:.0%}", flush=True)
