"""Which other pages may show this one in a frame of theirs: on a Hugging Face Space that site alone, else none."""

from __future__ import annotations

import os

SPACE_FRAMES = "https://huggingface.co https://*.hf.space"


def frame_headers() -> dict[str, str]:
    """Return the headers that tell a browser so."""
    if os.environ.get("SPACE_HOST"):
        return {"content-security-policy": f"frame-ancestors {SPACE_FRAMES}"}
    return {"content-security-policy": "frame-ancestors 'none'", "x-frame-options": "DENY"}
