"""Every decoder that transformers registers obeys a window or is refused, as docs/families.md says.

``make test-families`` runs all; the families of ``KINDS``, one or more of each kind, are in ``make test`` as well.
"""

from __future__ import annotations

import pytest
from families import Family, families
from family_sweep import CURRENT, documented, judge, row

KINDS = {
    "llama qwen2 qwen3 gpt2 gptj phi3 olmo2 ctrl dbrx": "full attention; heads of several kinds, cross-attention",
    "mistral gemma2 gemma3_text starcoder2 cohere2 modernbert-decoder gemma4_text": "sliding windows",
    "gpt_oss granite_swa mimo_v2_flash": "sinks",
    "opt biogpt xglm bart whisper": "learned positions",
    "deepseek_v3 minicpm3": "latent attention",
    "bloom mpt falcon": "ALiBi; a head that drops keywords",
    "gpt_neo reformer": "local layers",
    "bert big_bird": "encoders that may be decoders",
    "mllama prophetnet": "cross-attention",
    "jamba qwen3_next minimax mamba lfm2_moe": "linear and hybrid layers",
    "gemma3n_text llama4_text dory longcat_flash deepseek_v32": "shared keys, chunks, loops, two a layer, indexers",
    "xlm cpmant openai-gpt git musicgen": "no cache, no mask, tokens that cannot be counted",
}
FAMILIES = list(families())
FAST = {name for names in KINDS for name in names.split()}


def marks(family: Family) -> list[pytest.MarkDecorator]:
    """Mark what is left to `make test-families`."""
    return [] if family.type in FAST else [pytest.mark.slow, pytest.mark.families]


@pytest.mark.filterwarnings("ignore")  # models say much about tiny configs
@pytest.mark.parametrize("family", [pytest.param(f, id=str(f), marks=marks(f)) for f in FAMILIES])
def test_equal_or_refused(family: Family) -> None:
    """`judge` raises where neither holds; other releases than the page's may come to other verdicts."""
    found = row(family, judge(family))
    if CURRENT:
        assert found in documented()[1]


def test_the_page_lists_every_family() -> None:
    """Model type, class and variant of each, in order; on other releases, the classes that both know."""
    listed = [tuple(cell.strip() for cell in line.split("|")[1:4]) for line in documented()[1]]
    registered = [(family.type, family.name, family.variant) for family in FAMILIES]
    if CURRENT:
        assert listed == registered
    else:
        known = {kind: name for kind, name, _ in listed}
        assert all(known.get(kind, name) == name for kind, name, _ in registered)
