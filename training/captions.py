"""Writes captions for scenes, in three languages; a caption may leave attributes unsaid."""

import random
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from training.vocabulary import (
    ATTRIBUTES,
    COLOURS,
    LANGUAGES,
    MOTIONS,
    SHAPES,
    UNNAMED_OBJECT,
    Language,
)
from training.world import Scene, sample_scene

Said = dict[str, str | None]
"""Attribute name to the value that the caption names, None where it says nothing."""

NOTHING_SAID: Final[Said] = dict.fromkeys(ATTRIBUTES)

EN_PLACES: Final = (
    "{what} on a {where} background",
    "{what}, {where} background",
    "{where} background, {what}",
    "{what} in front of a {where} background",
    "on a {where} background {what}",
    "{what} over a {where} backdrop",
    "{what} against a {where} background",
)
EN_OPENINGS: Final = ("", "", "", "", "a video of ", "animation: ")
ZH_PLACES: Final = (
    "{what}在{where}背景上{does}",
    "{where}背景，{what}{does}",
    "{where}背景下，{what}{does}",
    "{what}{does}，{where}背景",
    "在{where}的背景上，{what}{does}",
    "{where}背景上{what}{does}",
)
JA_PLACES: Final = (
    "{where}背景で{what}",
    "{where}背景の前で{what}",
    "{where}背景に{what}",
    "{what}、{where}背景",
    "{where}背景、{what}",
    "{where}背景の上で{what}",
)


def _noun(said: Said, language: Language, rng: random.Random) -> str:
    shape = said["shape"]
    return rng.choice(SHAPES[shape][language] if shape else UNNAMED_OBJECT[language])


def _verb(said: Said, language: Language, rng: random.Random) -> str:
    motion = said["motion"]
    return rng.choice(MOTIONS[motion][language]) if motion else ""


def _english(said: Said, rng: random.Random) -> str:
    noun = _noun(said, "en", rng)
    if said["foreground"]:
        noun = f"{said['foreground']} {noun}"
    article = "an" if noun[0] in "aeo" else "a"
    subject = f"{article} {noun}" if rng.random() < 0.8 else rng.choice(("the ", "one ", "")) + noun
    verb = _verb(said, "en", rng)
    is_participle = verb.startswith("is ") or verb.endswith("ing")
    if verb and not is_participle and rng.random() < 0.15:
        subject += " that"
    text = f"{subject} {verb}".strip()
    if said["background"]:
        text = rng.choice(EN_PLACES).format(what=text, where=said["background"])
    return rng.choice(EN_OPENINGS) + text + rng.choice(("", "", "."))


def _chinese(said: Said, rng: random.Random) -> str:
    colour = ""
    if said["foreground"]:
        colour = COLOURS[said["foreground"]].zh + rng.choice(("色", "色", ""))
        colour += rng.choice(("的", ""))
    subject = rng.choice(("一个", "一个", "一颗", "", "一只")) + colour + _noun(said, "zh", rng)
    verb = _verb(said, "zh", rng)
    if said["background"]:
        where = COLOURS[said["background"]].zh + "色"
        text = rng.choice(ZH_PLACES).format(what=subject, where=where, does=verb)
    else:
        text = subject + (rng.choice(("", "在", "正在")) if verb else "") + verb
    return text + rng.choice(("", "", "。"))


def _japanese(said: Said, rng: random.Random) -> str:
    colour = rng.choice(COLOURS[said["foreground"]].ja) if said["foreground"] else ""
    noun, verb = _noun(said, "ja", rng), _verb(said, "ja", rng)
    text = colour + noun + (rng.choice(("が", "が", "は")) + verb if verb else "")
    if said["background"]:
        where = rng.choice(COLOURS[said["background"]].ja)
        if verb and rng.random() < 0.3:
            text = f"{colour}{noun}が{where}背景で{verb}"
        else:
            text = rng.choice(JA_PLACES).format(what=text, where=where)
    return text + rng.choice(("", "", "。"))


WRITERS: Final[dict[Language, Callable[[Said, random.Random], str]]] = {
    "en": _english,
    "zh": _chinese,
    "ja": _japanese,
}


def write_caption(
    scene: Scene, rng: random.Random, *, language: Language | None = None, unsaid: float = 0.0
) -> tuple[str, Said]:
    """One caption and what it says; each attribute stays unsaid with probability ``unsaid``."""
    chosen = rng.choice(LANGUAGES) if language is None else language
    fields = asdict(scene)
    said = {name: None if rng.random() < unsaid else str(fields[name]) for name in ATTRIBUTES}
    return WRITERS[chosen](said, rng), said


def held_out_captions(count: int, seed: int = 777) -> list[tuple[str, Language, Scene]]:
    """The evaluation set: combinations that training never shows, languages taking turns."""
    rng = random.Random(seed)
    rows = []
    for k in range(count):
        scene, language = sample_scene(rng, held_out=True), LANGUAGES[k % len(LANGUAGES)]
        rows.append((write_caption(scene, rng, language=language)[0], language, scene))
    return rows
