"""What one fault did and what was seen."""

from dataclasses import dataclass, field

from tests.faults.stage import Stage


@dataclass(kw_only=True)
class Verdict:
    """Facts for people, and everything that should have been otherwise.

    Attributes:
        done: What was done, and how often.
        seen: Figures in words.
        wrong: Empty = the system kept its promises.
    """

    done: str = ""
    seen: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def note(self, words: str) -> None:
        self.seen.append(words)

    def hold(self, what: str, value: float, *, at_most: float, unit: str = "") -> None:
        """Note a figure that must not exceed *at_most*."""
        space = " " if unit else ""
        self.seen.append(f"{what} {value:.4g}{space}{unit} (at most {at_most:g})")
        if value > at_most:
            self.wrong.append(self.seen[-1])

    def require(self, is_so: object, what: str) -> None:
        if not is_so:
            self.wrong.append(what)

    def judge(self, stage: Stage) -> None:
        """Ask whether all jobs ended and every invariant holds."""
        breaches = stage.breaches()
        self.wrong += [f"{b.rule}: {b.found}" for b in breaches[:20]]
        states = ", ".join(f"{count} {state}" for state, count in sorted(stage.states().items()))
        accepted = len(stage.history.acknowledged())
        promised = [f"{accepted} accepted"] if accepted else []  # else none came by HTTP
        self.note("; ".join([*promised, states, f"{len(breaches)} invariants broken"]))

    def expect_all_succeeded(self, stage: Stage) -> None:
        others = {s: n for s, n in stage.states().items() if s != "succeeded"}
        self.require(not others, f"not all succeeded: {others}")
