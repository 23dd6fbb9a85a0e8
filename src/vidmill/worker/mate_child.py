"""Rank 1 or higher of a worker with several devices: loads the model, helps to draw every clip."""

import os
import sys
from pathlib import Path

from vidmill.domain.clip import ClipSpec
from vidmill.domain.ports import LoraFiles
from vidmill.domain.profile import Layout
from vidmill.worker.child import Link, connect

EXIT_FAILED = 5
"""Exit status after a failure, which was said before."""


def serve(link: Link) -> None:
    """Do what rank 0 says until it hangs up."""
    start, _ = link.hear()
    from vidmill.telemetry import configure_logging

    configure_logging(start["log_level"], start["log_format"])
    from vidmill.engines.ranks import MateEngine
    from vidmill.profiles import load_profile

    engine = MateEngine(
        load_profile(start["profile"]),
        start["source"],
        device=start["device"],
        threads=start["options"]["threads"],
        layout=start["options"].get("layout", "auto"),
        ranks=start["ranks"],
    )
    engine.load()
    link.say("loaded")
    terms, _ = link.hear()
    engine.agree(Layout(terms["layout"]))
    link.say("agreed")
    join, _ = link.hear()
    engine.join(join["port"], rank=start["rank"])
    link.say("joined")
    while True:
        order, _ = link.hear()
        engine.help(
            ClipSpec.from_json(order["spec"]),
            clip=order["clip"],
            stop=link.stop,
            lora=_lora_files(order["lora"]),
        )
        link.say("drawn")


def _lora_files(paths: dict[str, str] | None) -> LoraFiles | None:
    return LoraFiles(high=Path(paths["high"]), low=Path(paths["low"])) if paths else None


def main(arguments: list[str]) -> None:
    link = connect(arguments)
    try:
        serve(link)
    except Exception as error:  # noqa: BLE001  the edge of this process: rank 0 decides
        link.say_failure("failed", error)
        os._exit(EXIT_FAILED)  # in good order it would wait for ranks that are out of step


if __name__ == "__main__":
    main(sys.argv[1:])
