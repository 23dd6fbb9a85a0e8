"""Has a file of prompts checked and priced, makes the right rows, and saves them all as one ZIP.

python batch.py campaign.csv clips.zip
"""

import sys

from vidmill.client import Batch, Vidmill


def show(batch: Batch) -> None:
    counts = batch.counts
    print(f"{counts.completed} of {counts.total} done, {counts.failed} failed", flush=True)


if __name__ == "__main__":
    source, target = sys.argv[1:3]
    with Vidmill() as vidmill:
        checked = vidmill.batches.upload(source)
        for row in checked.problems:
            print(f"line {row.line}:", "; ".join(problem.message for problem in row.problems))
        print(f"{checked.counts.ready} rows, {checked.price.credits} credits")
        vidmill.batches.confirm(checked.batch_id)
        vidmill.batches.wait(checked.batch_id, on_progress=show)
        print("saved", vidmill.batches.archive(checked.batch_id, target))
