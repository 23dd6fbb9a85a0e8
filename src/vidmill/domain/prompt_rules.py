"""The rules that may add words to a prompt, as data. Change a word, raise `VERSION`."""

from collections.abc import Mapping

VERSION = "2"
"""Shown on every task with the words that were added, so an old clip can be explained."""

Wording = Mapping[str, str]
"""The same words by language: `en`, `zh`, `ja`."""

JOINTS: Wording = {"en": ", ", "zh": "，", "ja": "、"}
"""What stands between the caller's words and ours."""

STYLES: Mapping[str, Wording] = {
    "realistic": {
        "en": "realistic live-action footage, natural light, true-to-life skin and materials",
        "zh": "写实风格，实景拍摄，自然光线，皮肤与材质真实",
        "ja": "実写のようなリアルな映像、自然光、本物らしい肌と素材の質感",
    },
    "cinematic": {
        "en": "cinematic shot, shallow depth of field, soft key light, film colour grading",
        "zh": "电影质感，浅景深，柔和主光，胶片调色",
        "ja": "映画的なショット、浅い被写界深度、柔らかなキーライト、フィルム調の色彩",
    },
    "documentary": {
        "en": "documentary style, available light, unposed moments",
        "zh": "纪录片风格，现场光，真实自然，不摆拍",
        "ja": "ドキュメンタリー風、自然な環境光、演出のない瞬間",
    },
    "tech": {
        "en": "clean high-tech look, cool rim light, crisp reflections",
        "zh": "科技感画面，冷色轮廓光，反射清晰",
        "ja": "ハイテクでクリーンな映像、寒色のリムライト、くっきりした反射",
    },
    "warm": {
        "en": "warm colours, golden-hour light, gentle mood",
        "zh": "暖色调，黄金时刻的光线，温馨柔和的氛围",
        "ja": "暖色の色調、夕暮れの金色の光、穏やかな雰囲気",
    },
    "cool": {
        "en": "cool colours, blue-toned light, calm mood",
        "zh": "冷色调，偏蓝的光线，宁静的氛围",
        "ja": "寒色の色調、青みのある光、静かな雰囲気",
    },
}

CAMERAS: Mapping[str, Wording] = {
    "static": {
        "en": "static camera, locked-off shot",
        "zh": "固定镜头，机位不动",
        "ja": "固定カメラ、動かないフレーム",
    },
    "pan_left": {
        "en": "the camera slowly pans left",
        "zh": "镜头缓慢向左摇",
        "ja": "カメラがゆっくり左へパンする",
    },
    "pan_right": {
        "en": "the camera slowly pans right",
        "zh": "镜头缓慢向右摇",
        "ja": "カメラがゆっくり右へパンする",
    },
    "tilt_up": {
        "en": "the camera slowly tilts up",
        "zh": "镜头缓慢上摇",
        "ja": "カメラがゆっくり上へティルトする",
    },
    "tilt_down": {
        "en": "the camera slowly tilts down",
        "zh": "镜头缓慢下摇",
        "ja": "カメラがゆっくり下へティルトする",
    },
    "truck_left": {
        "en": "the camera slowly moves left",
        "zh": "镜头缓慢左移",
        "ja": "カメラがゆっくり左へ平行移動する",
    },
    "truck_right": {
        "en": "the camera slowly moves right",
        "zh": "镜头缓慢右移",
        "ja": "カメラがゆっくり右へ平行移動する",
    },
    "dolly_in": {
        "en": "the camera slowly pushes in",
        "zh": "镜头缓慢前推",
        "ja": "カメラがゆっくり前進し、被写体に近づく",
    },
    "dolly_out": {
        "en": "the camera slowly pulls back",
        "zh": "镜头缓慢后拉",
        "ja": "カメラがゆっくり後退し、被写体から離れる",
    },
    "crane_up": {
        "en": "crane shot, the camera slowly rises",
        "zh": "摇臂镜头，镜头缓慢上升",
        "ja": "クレーンショット、カメラがゆっくり上昇する",
    },
    "crane_down": {
        "en": "crane shot, the camera slowly descends",
        "zh": "摇臂镜头，镜头缓慢下降",
        "ja": "クレーンショット、カメラがゆっくり下降する",
    },
    "orbit": {
        "en": "the camera slowly orbits around the subject",
        "zh": "镜头缓慢环绕主体",
        "ja": "カメラが被写体の周りをゆっくり回り込む",
    },
    "tracking": {
        "en": "tracking shot, the camera follows the subject",
        "zh": "跟拍镜头，镜头跟随主体移动",
        "ja": "トラッキングショット、カメラが被写体を追う",
    },
    "handheld": {
        "en": "hand-held camera, slight natural shake",
        "zh": "手持镜头，画面轻微自然晃动",
        "ja": "手持ちカメラ、わずかで自然な揺れ",
    },
}
"""Moves as Wan2.2's own prompt rewriter writes them where it has the move; see docs/prompts.md."""

STYLE_CAMERAS: Mapping[str, Wording] = {
    "documentary": {"en": "hand-held camera", "zh": "手持摄影", "ja": "手持ちカメラ"},
    "tech": {
        "en": "precise slow camera move",
        "zh": "精准缓慢的运镜",
        "ja": "正確でゆっくりしたカメラワーク",
    },
}
"""The camera of a style that has one. A camera that the request names takes its place."""

PHYSICS: Wording = {
    "en": "physically plausible motion: gravity, inertia, solid contact, continuous shapes",
    "zh": "运动符合物理规律：重力、惯性、真实接触、形体连续",
    "ja": "物理的に自然な動き：重力、慣性、確かな接触、破綻のない形",
}
