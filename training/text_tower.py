"""The text stage: a local byte-level BPE tokenizer and a two-layer UMT5 encoder.

Every token of a caption learns to carry the same fixed code of what the whole caption says, so the
video experts never have to learn language: three languages cost them nothing.
"""

import copy
import random
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from training.captions import NOTHING_SAID, Said, write_caption
from training.loop import Learner, linear, train
from training.vocabulary import ATTRIBUTES, LANGUAGES
from training.world import sample_scene

MAX_TOKENS: Final = 40
CODE_WIDTH: Final = 64
MAX_VOCABULARY: Final = 900
CORPUS_SCENES: Final = 3000
BATCH_SIZE: Final = 64
UNSAID_SHARE: Final = 0.1
PEAK_LEARNING_RATE: Final = 4e-3
SLOT_VALUE: Final = (CODE_WIDTH / len(ATTRIBUTES)) ** 0.5
"""A set slot's height: the code then has unit mean square, like normalised activations."""
LOGIT_SCALE: Final = 3.0

CJK_OR_MARK: Final = r"[\u3040-\u30ff\u3400-\u9fff\u3000-\u303f]|[,.!?:]"


def code_of(said: Said) -> Tensor:
    """The canonical code, float32 [CODE_WIDTH]: one slot per value, one for "not said"."""
    code, start = torch.zeros(CODE_WIDTH), 0
    for name, values in ATTRIBUTES.items():
        value = said[name]
        code[start + (values.index(value) if value else len(values))] = SLOT_VALUE
        start += len(values) + 1
    return code


def new_tokenizer(*, num_scenes: int = CORPUS_SCENES, seed: int = 0) -> PreTrainedTokenizerFast:
    """Train the tokenizer on captions; each CJK character stands alone, nothing is unknown."""
    rng = random.Random(seed)
    corpus = [
        write_caption(sample_scene(rng), rng, language=language)[0]
        for _ in range(num_scenes)
        for language in LANGUAGES
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CJK_OR_MARK), "isolated"),
            pre_tokenizers.Split(Regex(r"\s+"), "removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_VOCABULARY,
        special_tokens=["<pad>", "</s>", "<unk>"],
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
        padding_side="right",
    )


def new_text_encoder(vocabulary_size: int) -> UMT5EncoderModel:
    """A fresh encoder of 0.16 M parameters."""
    config = UMT5Config(
        vocab_size=vocabulary_size,
        d_model=CODE_WIDTH,
        d_kv=24,
        d_ff=192,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        is_encoder_decoder=False,
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config)


class TextTower:
    """Frozen tokenizer and encoder, applied exactly as WanPipeline applies them."""

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder.eval().requires_grad_(requires_grad=False)

    @classmethod
    def load(cls, folder: Path) -> "TextTower":
        """Read ``tokenizer`` and ``text_encoder`` below a diffusers folder."""
        return cls(
            PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
            UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
        )

    def save(self, folder: Path) -> None:
        """Write both parts below ``folder``."""
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.encoder.save_pretrained(folder / "text_encoder")

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> Tensor:
        """Captions to float32 [n, MAX_TOKENS, CODE_WIDTH] with the padding zeroed."""
        tokens = self.tokenizer(
            captions,
            padding="max_length",
            max_length=MAX_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        hidden = self.encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        masked: Tensor = hidden * tokens.attention_mask[..., None]
        return masked


def text_loss(encoder: nn.Module, tokenizer: Any, samples: list[tuple[str, Said]]) -> Tensor:
    """Cross-entropy over each attribute's slots plus the squared error to the code, per token."""
    code = torch.stack([code_of(said) for _, said in samples])
    tokens = tokenizer([text for text, _ in samples], padding="longest", return_tensors="pt")
    hidden = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    is_token = tokens.attention_mask.float()
    error = ((hidden - code[:, None]) ** 2 * is_token[..., None]).sum()
    loss: Tensor = error / is_token.sum() / CODE_WIDTH
    start = 0
    for values in ATTRIBUTES.values():
        slots = slice(start, start + len(values) + 1)
        target = code[:, slots].argmax(-1)[:, None].expand(-1, hidden.shape[1])
        logits = hidden[..., slots].transpose(1, 2) * LOGIT_SCALE
        entropy = functional.cross_entropy(logits, target, reduction="none")
        loss = loss + (entropy * is_token).sum() / is_token.sum()
        start = slots.stop
    return loss


def draw_samples(rng: random.Random, batch_size: int = BATCH_SIZE) -> list[tuple[str, Said]]:
    """Captions of training scenes with what they say; the first one is empty."""
    captions = [
        write_caption(sample_scene(rng), rng, unsaid=UNSAID_SHARE) for _ in range(batch_size - 1)
    ]
    return [("", NOTHING_SAID), *captions]


def new_text_learner(encoder: nn.Module, seed: int = 0) -> Learner:
    """AdamW on a falling rate."""
    return Learner(
        network=encoder,
        average=copy.deepcopy(encoder).requires_grad_(requires_grad=False),
        optimizers=[torch.optim.AdamW(encoder.parameters(), lr=PEAK_LEARNING_RATE)],
        schedule=linear(PEAK_LEARNING_RATE, warmup_steps=40, hold=0.0, end=0.02),
        seed=f"text/{seed}",
        max_average_decay=0.95,
    )


def train_text(learner: Learner, tokenizer: Any, checkpoint: Path, *, num_steps: int) -> None:
    """Make all steps; resumes from ``checkpoint``."""

    def step_loss(_progress: float) -> Tensor:
        return text_loss(learner.network, tokenizer, draw_samples(learner.rng))

    train(learner, step_loss, checkpoint, num_steps=num_steps)


@torch.no_grad()
def understood(tower: TextTower, count: int, seed: int = 99) -> dict[str, float]:
    """Share of held-out captions whose mean token reads as exactly the right code, by language."""
    rng = random.Random(seed)
    shares: dict[str, float] = {}
    for language in LANGUAGES:
        right = 0
        for _ in range(count):
            scene = sample_scene(rng, held_out=True)
            caption, said = write_caption(scene, rng, language=language)
            tokens = tower.tokenizer([caption], return_tensors="pt")
            mean = tower.encoder(**tokens).last_hidden_state[0].mean(0)
            right += int(torch.equal(mean > SLOT_VALUE / 2, code_of(said) > 0))
        shares[language] = right / count
    return shares
