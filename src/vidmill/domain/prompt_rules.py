"""The rules that may add words to a prompt, as data. Change a word, raise `VERSION`."""

from collections.abc import Mapping

VERSION = "1"
"""Shown on every task with the words that were added, so an old clip can be explained."""

Wording = Mapping[str, str]
"""The same words by language: `en`, `zh`, `ja`."""

JOINTS: Wording = {"en": ", ", "zh": "，", "ja": "、"}
"""What stands between the caller's words and ours."""

STYLES: Mapping[str, Wording] = {
    "realistic": {
        "en": "realistic live-action footage, natural light, true-to-life skin and materials",
        "zh": "写实实拍，自然光线，真实的皮肤与材质",
        "ja": "実写のようなリアルな映像、自然光、本物らしい肌と素材の質感",
    },
    "cinematic": {
        "en": "cinematic shot, shallow depth of field, soft key light, film colour grading",
        "zh": "电影质感镜头，浅景深，柔和主光，胶片调色",
        "ja": "映画的なショット、浅い被写界深度、柔らかなキーライト、フィルム調の色彩",
    },
    "documentary": {
        "en": "documentary style, hand-held camera, available light, unposed moments",
        "zh": "纪录片风格，手持摄影，现场光，自然不摆拍",
        "ja": "ドキュメンタリー風、手持ちカメラ、その場の光、演出のない瞬間",
    },
    "tech": {
        "en": "clean high-tech look, cool rim light, crisp reflections, precise slow camera move",
        "zh": "科技感画面，冷色轮廓光，清晰反射，精准缓慢的运镜",
        "ja": "ハイテクで清潔な画面、冷たい輪郭光、鮮明な反射、正確でゆっくりしたカメラワーク",
    },
    "warm": {
        "en": "warm colours, golden-hour light, gentle mood",
        "zh": "暖色调，黄金时刻光线，温柔氛围",
        "ja": "暖色の色調、夕暮れの金色の光、穏やかな雰囲気",
    },
    "cool": {
        "en": "cool colours, blue-toned light, calm mood",
        "zh": "冷色调，偏蓝光线，冷静氛围",
        "ja": "寒色の色調、青みのある光、静かな雰囲気",
    },
}

PHYSICS: Wording = {
    "en": "physically plausible motion: gravity, inertia, solid contact, continuous shapes",
    "zh": "运动符合物理规律：重力、惯性、真实接触、形体连续",
    "ja": "物理的に自然な動き：重力、慣性、確かな接触、連続した形",
}
