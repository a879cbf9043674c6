"""The rows of the ablation, and the tables that they are shown in: each row differs in one thing from another one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from recipes.mini.train_student import UNBOUNDED, WINDOW, Variant

SHORT = Variant(steps=60, ce_weight=1.0)
DIRECT = replace(SHORT, schedule="direct")
SEEDS = (0, 1, 2)
"""Of training: other rows in another order."""


@dataclass(frozen=True)
class Row:
    """What is trained, or which window the teacher's own weights are put under."""

    variant: Variant | None = None
    window: int = UNBOUNDED
    spoken: bool = True
    """Whether it also speaks; else it is measured on held-out rows alone."""
    shipped: bool = False
    """The student that was trained for the package, not one of ours."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Training seeds; without training there is one."""
        return SEEDS if self.variant is not None and not self.shipped else SEEDS[:1]


TEACHER, UNTRAINED, STUDENT = "teacher", f"window only, W = {WINDOW}", f"shipped student, W = {WINDOW}"
CURRICULUM = "CE + KL, curriculum"
ROWS = {
    TEACHER: Row(),
    UNTRAINED: Row(window=WINDOW),
    "CE, direct": Row(replace(DIRECT, kl_weight=0.0)),
    "KL, direct": Row(replace(DIRECT, ce_weight=0.0)),
    "CE + KL, direct": Row(DIRECT),
    CURRICULUM: Row(SHORT),
    STUDENT: Row(Variant(), shipped=True),
    "CE + KL, LoRA": Row(replace(DIRECT, lora=True, learning_rate=4 * DIRECT.learning_rate)),
    "CE, no window": Row(replace(DIRECT, full=True)),
    **{f"window only, W = {width}": Row(window=width) for width in (8, 32)},
    **{f"{CURRICULUM}, W = {width}": Row(replace(SHORT, window=width)) for width in (8, 32)},
    **{
        f"{CURRICULUM}, {name} of the speech": Row(replace(SHORT, share=share))
        for name, share in (("1/64", 1 / 64), ("1/16", 1 / 16), ("1/4", 1 / 4))
    },
    **{
        f"{CURRICULUM}, blocks = {'all' if number == UNBOUNDED else number}": Row(replace(SHORT, blocks=number))
        for number in (1, 3, UNBOUNDED)
    },
    f"{CURRICULUM}, no gap": Row(replace(SHORT, max_gap=0)),
    "CE + reverse KL, direct": Row(replace(DIRECT, divergence="reverse"), spoken=False),
    "CE + Jensen-Shannon, direct": Row(replace(DIRECT, divergence="jensen-shannon"), spoken=False),
    "CE + KL + hidden states, direct": Row(replace(DIRECT, hidden_weight=1.0), spoken=False),
}

WORDS = (
    "WER",
    "WER, 95 %",
    "WER by seed",
    "WER - teacher's, 95 %",
    "WER - untrained's, 95 %",
    "similarity",
    "similarity - teacher's, 95 %",
    "failures",
)
CODES = ("CE", "KL", "KL, range", "agreement")
STREAMS = ("CE, streams", "KL, streams", "KL, streams, range", "WER, streams", "WER of each")
TABLES = (
    ("What each part is worth", [*ROWS][:9], (*CODES, *WORDS)),
    (
        "Windows",
        [
            TEACHER,
            "window only, W = 8",
            UNTRAINED,
            "window only, W = 32",
            f"{CURRICULUM}, W = 8",
            CURRICULUM,
            f"{CURRICULUM}, W = 32",
        ],
        (*CODES, *WORDS),
    ),
    (
        "How much speech it takes",
        [UNTRAINED, *(f"{CURRICULUM}, {share} of the speech" for share in ("1/64", "1/16", "1/4")), CURRICULUM],
        ("utterances read", *CODES, *WORDS),
    ),
    (
        "Texts that stay visible in a stream (the others: 2)",
        [
            TEACHER,
            UNTRAINED,
            f"{CURRICULUM}, blocks = 1",
            CURRICULUM,
            f"{CURRICULUM}, blocks = 3",
            f"{CURRICULUM}, blocks = all",
        ],
        STREAMS,
    ),
    (
        "Positions that jump after the reference in training, and far positions",
        [UNTRAINED, CURRICULUM, f"{CURRICULUM}, no gap"],
        ("CE, streams", "CE, far", "KL, far", "KL, far, range", "WER, streams"),
    ),
    ("Beyond the paper, on held-out rows alone", [*ROWS][4:5] + [*ROWS][-3:], (*CODES, "CE, streams", "KL, streams")),
)
"""Title, rows and columns."""
WITH_STREAM = {name for _, names, columns in TABLES if "WER, streams" in columns for name in names}
"""Rows that also read a stream."""
