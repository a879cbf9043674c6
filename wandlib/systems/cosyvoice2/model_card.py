"""The model card of a windowed student: what it is, how it was made, whom to credit, under which licence."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import metadata
from pathlib import Path

CARD = """\
---
license: apache-2.0
base_model: FunAudioLLM/CosyVoice2-0.5B
pipeline_tag: text-to-speech
library_name: wandlib
tags: [text-to-speech, windowed-attention, distillation, wand]
---

# CosyVoice 2 with a window of {window}

The language model of [CosyVoice 2](https://arxiv.org/abs/2412.10117), distilled so that a generated speech token sees
the whole prompt and the last {window} generated tokens ({seconds:.2g} s). A step costs the same however long it speaks.
The method is WAND ([arXiv 2604.08558](https://arxiv.org/abs/2604.08558)); the code is
{project}, which is not by WAND's authors.

## Use

Needs the folder of CosyVoice2-0.5B for tokenizer, flow and vocoder.

```python
tts = wandlib.load_system("cosyvoice2", "CosyVoice2-0.5B", student="this-folder")
tts.synthesize("Hello there.", reference="voice.wav", transcript="What it says.", attention="window").save("out.wav")
```

`wandlib export --to cosyvoice llm.pt` writes it for upstream's own CLI, which runs it under full attention.

## Training

| | |
|---|---|
| data | {data} |
| settings | {settings} |

## Results

{results}

## Limits

Trained on {data}: other languages and styles may have suffered more than the results show. It clones voices: use it
with the speaker's consent, and mark what it makes as synthetic.

## Licence and credits

Apache-2.0, as the base model. This is a modified version of CosyVoice2-0.5B: the weights of the language model were
changed by training.

- CosyVoice 2: Du et al., *CosyVoice 2: Scalable Streaming Speech Synthesis with Large Language Models*,
  arXiv 2412.10117; code and weights (c) Alibaba Inc., Apache-2.0.
- The decoder was initialised from Qwen2.5-0.5B (Apache-2.0).
- WAND: Lee, Nguyen, Kang, Shim, *WAND: Windowed Attention and Knowledge Distillation for Efficient Autoregressive
  Text-to-Speech Models*, arXiv 2604.08558.
- The training data has a licence of its own: {data_credit}
"""

LIBRITTS = "LibriTTS (Zen et al., arXiv 1904.02882), CC BY 4.0."


def write_model_card(
    folder: str | Path,
    *,
    window: int = 32,
    data: str = "LibriTTS train-clean-100",
    data_credit: str = LIBRITTS,
    settings: str = "wandlib train, defaults: 1 epoch, AdamW 1e-5, window 128 to the final one, CE + skew KL",
    results: Mapping[str, str] | None = None,
) -> Path:
    """Write README.md beside a student.

    Parameters
    ----------
    folder
        Of the student.
    window
        Generated keys that it sees.
    data, data_credit, settings
        How it was trained, on what, and under which licence that is.
    results
        Measured values by name; None: the card says that there are none.

    Returns
    -------
    The file.
    """
    rows = "\n".join(f"| {name} | {value} |" for name, value in (results or {}).items())
    table = f"| measure | value |\n|---|---|\n{rows}" if rows else "Not measured yet: `wandlib evaluate`."
    path = Path(folder) / "README.md"
    addresses = [entry.split(", ")[1] for entry in metadata("wandlib").get_all("Project-URL") or []]
    project = f"[wandlib]({addresses[0]})" if addresses else "wandlib"
    card = CARD.format(
        project=project,
        window=window,
        seconds=window / 25,
        data=data,
        settings=settings,
        results=table,
        data_credit=data_credit,
    )
    path.write_text(card, encoding="utf-8")
    return path
