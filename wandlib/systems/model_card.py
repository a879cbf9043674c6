"""The model card of a windowed student: what it is, how it was made, whom to credit, under which license."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path

CARD = """\
---
{front}
base_model: {repository}
pipeline_tag: text-to-speech
library_name: wandlib
tags: [text-to-speech, windowed-attention, distillation, wand]
---

# {title} with a window of {window}

The language model of [{title}]({page}), distilled so that a generated speech token sees
the whole prompt and the last {window} generated tokens ({seconds:.2g} s). A step costs the same however long it speaks.
The method is WAND ([arXiv 2604.08558](https://arxiv.org/abs/2604.08558)); the code is
{project}, which is not by WAND's authors.

## Use

Needs the published folder of {repository} for everything but the language model.

```python
tts = wandlib.load_system("{system}", "{folder}", student="this-folder")
tts.synthesize("Hello there.", reference="voice.wav", attention="window").save("out.wav")
```

`wandlib export this-folder {files} --to {system}` writes it for the published code, which runs it under full attention.

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

## License and credits

As the base model: {terms}
This is a modified version of {repository}: the weights of the language model were changed by training.

{credits}
- WAND: Lee, Nguyen, Kang, Shim, *WAND: Windowed Attention and Knowledge Distillation for Efficient Autoregressive
  Text-to-Speech Models*, arXiv 2604.08558.
- The training data has a license of its own: {data_credit}
"""

LIBRITTS = "LibriTTS (Zen et al., arXiv 1904.02882), CC BY 4.0."
PAPER = "wandlib train, defaults: 1 epoch, AdamW 1e-5, window 128 to the final one, CE + skew KL"


@dataclass(frozen=True)
class Base:
    """What a card says of the system that a student was made of.

    Attributes
    ----------
    system
        Its name here.
    title
        Its name.
    repository
        Where it is published.
    page
        Address of its paper.
    license
        The license of its weights, as a card's front matter takes it: "apache-2.0", or "other".
    terms
        The same in a sentence: what whoever publishes a student must keep to.
    credits
        Whom to credit, a line each.
    codes_per_second
        Generated tokens for one second of sound.
    """

    system: str
    title: str
    repository: str
    page: str
    license: str
    terms: str
    credits: tuple[str, ...]
    codes_per_second: float


def write_model_card(
    folder: str | Path,
    base: Base,
    *,
    window: int,
    files: str,
    data: str = "LibriTTS train-clean-100",
    data_credit: str = LIBRITTS,
    settings: str = PAPER,
    results: Mapping[str, str] | None = None,
) -> Path:
    """Write README.md beside a student.

    Parameters
    ----------
    folder
        Folder of the student.
    base
        What it was made of.
    window
        Generated keys that it sees.
    files
        What ``wandlib export`` writes.
    data, data_credit, settings
        How it was trained, on what, and under which license that is.
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
    card = CARD.format(
        front=f"license: {base.license}",
        repository=base.repository,
        title=base.title,
        page=base.page,
        system=base.system,
        folder=base.repository.rpartition("/")[2],
        files=files,
        terms=base.terms,
        credits="\n".join(f"- {line}" for line in base.credits),
        project=f"[wandlib]({addresses[0]})" if addresses else "wandlib",
        window=window,
        seconds=window / base.codes_per_second,
        data=data,
        settings=settings,
        results=table,
        data_credit=data_credit,
    )
    path.write_text(card, encoding="utf-8")
    return path
