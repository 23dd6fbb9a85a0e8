"""The words of the caption world: what can be said, and how, in English, Chinese and Japanese.

The order of the tables is part of the held-out split (``world.is_held_out``): append, never sort.
"""

from dataclasses import dataclass
from typing import Final, Literal

Language = Literal["en", "zh", "ja"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh", "ja")


@dataclass(frozen=True)
class Colour:
    """One flat colour, sRGB 0..255, and its words; a Japanese form stands before any noun."""

    rgb: tuple[int, int, int]
    zh: str
    ja: tuple[str, ...]


Synonyms = dict[Language, tuple[str, ...]]

COLOURS: Final[dict[str, Colour]] = {
    "red": Colour((222, 42, 45), "红", ("赤い",)),
    "orange": Colour((245, 140, 30), "橙", ("オレンジ色の", "オレンジの")),
    "yellow": Colour((250, 220, 50), "黄", ("黄色い", "黄色の")),
    "green": Colour((40, 170, 70), "绿", ("緑の", "緑色の")),
    "blue": Colour((45, 85, 222), "蓝", ("青い", "青色の")),
    "purple": Colour((145, 60, 190), "紫", ("紫の", "紫色の")),
    "white": Colour((245, 245, 245), "白", ("白い", "白色の")),
    "black": Colour((20, 20, 22), "黑", ("黒い", "黒色の")),
}

SHAPES: Final[dict[str, Synonyms]] = {
    "circle": {
        "en": ("ball", "circle", "disc"),
        "zh": ("球", "圆形", "圆球", "小球", "圆"),
        "ja": ("ボール", "円", "丸", "球"),
    },
    "square": {
        "en": ("square", "box", "cube", "block"),
        "zh": ("方块", "正方形", "方形", "盒子"),
        "ja": ("四角", "正方形", "四角形", "箱"),
    },
    "triangle": {
        "en": ("triangle",),
        "zh": ("三角形", "三角"),
        "ja": ("三角形", "三角"),
    },
    "star": {
        "en": ("star",),
        "zh": ("星星", "五角星", "星形"),
        "ja": ("星", "星形"),
    },
}

MOTIONS: Final[dict[str, Synonyms]] = {
    "right": {
        "en": (
            "moves right",
            "moves to the right",
            "moving right",
            "slides from left to right",
            "rolls to the right",
            "goes right",
        ),
        "zh": ("向右移动", "从左向右移动", "往右移动", "从左到右滑动", "向右滚动"),
        "ja": ("右に動く", "右へ移動する", "左から右へ動く", "右に転がる"),
    },
    "left": {
        "en": (
            "moves left",
            "moves to the left",
            "moving left",
            "slides from right to left",
            "rolls to the left",
            "goes left",
        ),
        "zh": ("向左移动", "从右向左移动", "往左移动", "从右到左滑动", "向左滚动"),
        "ja": ("左に動く", "左へ移動する", "右から左へ動く", "左に転がる"),
    },
    "up": {
        "en": ("moves up", "rises", "moving up", "floats up", "goes up"),
        "zh": ("向上移动", "上升", "往上移动", "升起"),
        "ja": ("上に動く", "上へ移動する", "上昇する", "上がる"),
    },
    "down": {
        "en": ("moves down", "falls", "moving down", "falls down", "drops", "sinks"),
        "zh": ("向下移动", "下落", "往下移动", "落下", "下降"),
        "ja": ("下に動く", "下へ移動する", "落ちる", "下がる"),
    },
    "bounce": {
        "en": (
            "bounces",
            "bouncing",
            "is bouncing",
            "bounces up and down",
            "jumps up and down",
            "jumps",
        ),
        "zh": ("弹跳", "上下弹跳", "跳动", "跳跃", "弹起"),
        "ja": ("弾む", "跳ねる", "バウンドする", "上下に跳ねる", "ジャンプする"),
    },
    "grow": {
        "en": ("grows", "gets bigger", "growing", "becomes larger", "expands"),
        "zh": ("变大", "逐渐变大", "慢慢变大", "放大"),
        "ja": ("大きくなる", "だんだん大きくなる", "拡大する"),
    },
    "shrink": {
        "en": ("shrinks", "gets smaller", "shrinking", "becomes smaller"),
        "zh": ("变小", "逐渐变小", "慢慢变小", "缩小"),
        "ja": ("小さくなる", "だんだん小さくなる", "縮小する"),
    },
}

UNNAMED_OBJECT: Final[Synonyms] = {
    "en": ("object", "thing", "shape"),
    "zh": ("物体", "东西", "图形"),
    "ja": ("物体", "もの", "図形"),
}

COLOUR_NAMES: Final = tuple(COLOURS)
SHAPE_NAMES: Final = tuple(SHAPES)
MOTION_NAMES: Final = tuple(MOTIONS)

ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "foreground": COLOUR_NAMES,
    "background": COLOUR_NAMES,
    "shape": SHAPE_NAMES,
    "motion": MOTION_NAMES,
}
"""Attribute name to its possible values; also the slot order of the text tower's code."""
