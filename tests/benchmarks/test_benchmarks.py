"""The benchmarks: baselines that do what they say, arithmetic on planted times, and every benchmark run once, small."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
import typer
from transformers import DynamicCache
from typer.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks import caches, cuda, distillation, endless, report, shapes, suite, texts
from benchmarks.caches import BASELINES, SHARED, SINKS, STATIC, STOCK, WINDOW, fill, sink_cache
from benchmarks.figure import save, step_times
from benchmarks.floor import Floor
from benchmarks.report import Row
from benchmarks.sweep import FLOOR, Sweep
from benchmarks.timing import Generate, Loop, Steps, interleave, ratio
from wandlib import WandCache
from wandlib.attention.models import cache_inputs
from wandlib.evaluation.report import put_measured
from wandlib.profiling.estimate import cache_bytes

QUICK = suite.Settings(quick=True)
CPU: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}


# ------------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(("make", "nbytes"), [(shapes.cosyvoice2, 12_288), (shapes.indextts, 122_880)])
def test_real_shapes_cache_what_the_systems_cache(make: Any, nbytes: int) -> None:
    """Bytes of keys and values a token in 16 bit, counted from the upstream configurations."""
    config = make(quick=False).config
    assert cache_bytes(config, conditioning=1, generated=0, dtype=torch.bfloat16) == nbytes


def test_embedded_shape_is_that_of_the_shipped_weights() -> None:
    from safetensors import safe_open

    with torch.device("meta"):
        model = shapes.mini(quick=False).build(torch.float32, "meta")[0]
    with safe_open(shapes.TEACHER / "model.safetensors", "pt") as stored:
        shipped = {name: list(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118  no mapping
    built = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    assert built == shipped


def test_both_models_have_the_same_weights_in_the_same_memory() -> None:
    stock, converted = shapes.cosyvoice2(quick=True).build(**CPU)
    pairs = zip(stock.parameters(), converted.parameters(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)
    assert not hasattr(stock.model, "wand")
    assert not hasattr(stock.config, "wand")
    assert converted.model.wand.window == 32


# ---------------------------------------------------------------------------------------------------------- baselines


def test_sink_cache_keeps_the_first_and_the_last() -> None:
    layer = caches.SinkLayer(slots=10)
    for time in range(40):
        read, _ = layer.update(*torch.full((2, 1, 1, 1, 1), float(time)))
    first, last = list(range(SINKS)), list(range(40 - (10 - SINKS), 40))
    assert read.flatten().tolist() == layer.keys.flatten().tolist() == first + last
    assert (layer.get_seq_length(), layer.get_mask_sizes(1)) == (40, (10, 0))


def test_sink_cache_after_a_long_prompt() -> None:
    layer = caches.SinkLayer(slots=10)
    prompt = torch.arange(15.0).view(1, 1, 15, 1)
    assert layer.get_mask_sizes(15) == (15, 0)
    assert layer.update(prompt, prompt)[0].shape[2] == 15
    assert layer.keys.flatten().tolist() == [0, 1, 2, 3, 9, 10, 11, 12, 13, 14]


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_decodes_the_same_while_nothing_is_dropped(name: str) -> None:
    """Up to W tokens, window and sink cache still hold everything, and so must agree with full attention."""
    shape = shapes.cosyvoice2(quick=True)
    models = shape.build(**CPU)
    ids = torch.randint(shape.config.vocab_size, (2, shape.conditioning))
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": shape.window, "do_sample": False}
    cache = BASELINES[name].cache(shape, shape.conditioning + shape.window)
    model = models[BASELINES[name].windowed]
    decoded = model.generate(ids, **cache_inputs(model, cache), **options)
    assert decoded.tolist() == models[0].generate(ids, **options).tolist()


def test_window_and_sink_cache_hold_equally_much() -> None:
    shape = shapes.mini(quick=True)
    held = fill(sink_cache(shape.config, shape.conditioning + shape.window), shape, 100, batch=2, **CPU)
    window = fill(WandCache(shape.config, shape.window), shape, 100, batch=2, **CPU)
    assert window.nbytes == sum(layer.keys.nbytes + layer.values.nbytes for layer in held.layers)


@pytest.mark.parametrize("generated", [0, 5, 100])
@pytest.mark.parametrize("name", BASELINES)
def test_fill(name: str, generated: int) -> None:
    """A filled cache has seen the tokens, holds the bytes, and decodes on."""
    shape = shapes.cosyvoice2(quick=True)
    cache = BASELINES[name].cache(shape, shape.conditioning + generated + 10)
    fill(cache, shape, generated, batch=2, **CPU)
    assert int(cache.get_seq_length()) == shape.conditioning + generated
    if isinstance(cache, WandCache):
        assert cache.generated == generated
        on_paper = cache_bytes(shape.config, conditioning=shape.conditioning, generated=100, window=32, batch=2)
        assert cache.nbytes == on_paper
        assert all(bool(states.isfinite().all()) for states in cache[1])
    model = shape.build(**CPU)[BASELINES[name].windowed]
    assert len(Generate(model, cache, prompt=shape.conditioning, batch=2)(3)) == 3
    assert int(cache.get_seq_length()) == shape.conditioning + generated + 4


def test_beams_that_share_a_prompt_hold_what_they_should() -> None:
    shape = shapes.indextts(quick=True)
    on_paper = {"conditioning": shape.conditioning, "generated": 100, "window": 32, "batch": 2, "beams": 3}
    held = {}
    for name in (WINDOW, SHARED):
        cache = BASELINES[name].cache(shape, 0)
        fill(cache, shape, 100, batch=6, **CPU)
        assert cache.nbytes == cache_bytes(shape.config, **on_paper, shared=name == SHARED)
        assert all(bool(states.isfinite().all()) for states in cache[1])
        held[name] = cache
    decode = Generate(shape.build(**CPU)[1], held[SHARED], prompt=shape.conditioning, batch=2, beams=3)
    assert len(decode(3)) == 3
    assert held[SHARED].get_seq_length() == shape.conditioning + 104


# ------------------------------------------------------------------------------------------------------------- timing


@pytest.mark.parametrize("beams", [1, 3])
def test_generate_goes_on_where_it_stopped(beams: int) -> None:
    shape = shapes.indextts(quick=True)
    cache = DynamicCache(config=shape.config)
    decode = Generate(shape.build(**CPU)[0], cache, prompt=shape.conditioning, batch=1, beams=beams)
    lengths = []
    for _ in range(3):
        assert all(ms > 0 for ms in decode(4))
        lengths.append(cache.get_seq_length() - shape.conditioning)
    assert lengths == [4, 9, 14]
    assert cache.layers[0].keys.shape[0] == beams


def test_steps_leaves_out_the_first() -> None:
    calls: list[int] = []
    taken = Steps(lambda: calls.append(len(calls)), "cpu")(6)
    assert (len(calls), len(taken)) == (7, 6)


def test_in_turn() -> None:
    order: list[str] = []

    def runner(name: str, times: list[list[float]]) -> Any:
        def run(steps: int) -> list[float]:
            order.append(f"{name}{steps}")
            return times.pop(0)

        return run

    a, b = [[99.0], [1.0, 2.0, 90.0], [4.0]], [[99.0], [1.0], [8.0]]
    taken = interleave({"a": runner("a", a), "b": runner("b", b)}, rounds=2, steps=3)
    assert order == ["a3", "b3", "b3", "a3", "a3", "b3"]
    assert taken == {"a": [2.0, 4.0], "b": [1.0, 8.0]}
    assert ratio(taken["a"], taken["b"]) == statistics.median([2.0, 0.5])


def test_total_of_a_decode_whose_steps_grow_evenly() -> None:
    """Between the first and the last place, interpolation is exact for what grows linearly."""
    seconds, visit, rounds = (0.0, 10.0, 40.0), 5, 3

    def at(place: float, turn: int) -> float:
        return 2.0 + 0.01 * (25 * place + (turn + 1.5) * visit)

    ms = {
        STOCK: [[at(place, turn) for turn in range(rounds)] for place in seconds],
        STATIC: [[3.0] * rounds, [4.0] * rounds, [5.0] * rounds],
    }
    sweep = Sweep("planted", 25, seconds, visit, ms, [1.0] * rounds)
    exact = sum(2.0 + 0.01 * step for step in range(250))
    assert sweep.total(STOCK, 10) == pytest.approx([exact] * rounds, rel=2e-3)
    assert sweep.total(STATIC, 10) == [250 * 4.0] * rounds
    assert sweep.at(STATIC, 40) == [5.0] * rounds
    assert sweep.to_json()["milliseconds"][STATIC] == [3.0, 4.0, 5.0]
    with pytest.raises(ValueError, match="not in tuple"):
        sweep.at(STOCK, 20)
    pieces = [1.25 * (2.0 + 0.01 * 250 * (turn + 1.5)) for turn in range(rounds)]
    beside = Sweep("planted", 25, seconds, visit, ms, [1.0] * rounds, {STOCK: pieces}, piece=250)
    assert beside.interpolation_error(STOCK) == pytest.approx(1 - 1 / 1.25)


@pytest.mark.parametrize("make", [shapes.cosyvoice2, shapes.indextts])
def test_floor_reads_every_weight_and_every_entry_once(make: Any) -> None:
    shape = make(quick=True)
    model = shape.build(**CPU)[0]
    floor = Floor(model, batch=2, slots=219)
    outside = ("norm", "ln_", "embed", "wte", "wpe")  # norms and embeddings
    weights = sum(p.nbytes for name, p in model.named_parameters() if not any(result in name for result in outside))
    entries = cache_bytes(shape.config, conditioning=219, generated=0, batch=2)
    small = (64 + shape.config.num_hidden_layers * 64 + (256 if "gpt2" in model.config.model_type else 128)) * 2 * 4
    assert weights + entries <= floor.nbytes <= weights + entries + small
    assert len(floor.kernels) == shape.config.num_hidden_layers * (5 if model.config.model_type == "gpt2" else 8) + 1
    floor()


# ------------------------------------------------------------------------------------------------------------- report


@pytest.mark.parametrize(
    ("value", "target", "verdict"),
    [
        (1.5, ">= 1.5", "met"),
        (1.49, ">= 1.5", "**missed**"),
        (1.0, "> 1.0", "**missed**"),
        (1.03, "<= 1.03", "met"),
        (0.03, "< 0.03", "**missed**"),
        (math.nan, ">= 1.0", "**missed**"),
        (7.0, "", ""),
    ],
)
def test_verdict(value: float, target: str, verdict: str) -> None:
    assert Row("a", "b", value, target).verdict == verdict


def test_readme_quotes_the_results() -> None:
    text = report.README.read_text(encoding="utf-8")
    assert put_measured(text, report.stored_reports()) == text


def test_name_of_the_machine() -> None:
    assert report.machine("cpu").endswith(f", {torch.get_num_threads()} threads")
    assert report.file_name("AMD EPYC (tm) 9R14, 2 threads") == "amd-epyc-tm-9r14-2-threads"


# ------------------------------------------------------------------------------------------------ every one of them


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # dynamo cannot trace its checks


@pytest.mark.parametrize("name", ["batch1", "beams", "growth", "floor", "overhead"])
def test_every_benchmark_runs(name: str, untraced: None) -> None:
    result = suite.BENCHMARKS[name](QUICK)
    assert result.rows
    assert all(math.isfinite(row.value) for row in result.rows)
    for sweep in result.sweeps:
        assert all(len(pieces) == 1 and pieces[0] > 0 for pieces in sweep.whole.values())
        assert all(ms > 0 for places in sweep.milliseconds.values() for rounds in places for ms in rounds)
        assert len(sweep.floor) == 1


@pytest.mark.slow
def test_endless_runs() -> None:
    """Bytes stand still from the second minute to the end of the hour; full attention stops where memory ends."""
    part = endless.endless(QUICK, most=1e6)
    assert [row.target for row in part.rows] == ["<= 1.03", "<= 1.0", "", "", "", ""] * 2
    assert all(math.isfinite(row.value) and row.value > 0 for row in part.rows)
    assert part.rows[1].value == part.rows[7].value == 1.0
    shape = shapes.mini(quick=True)
    on_paper = {"text_blocks": endless.TEXTS * 2, "blocks": 2, "window": 32}
    expected = cache_bytes(shape.config, conditioning=endless.PINNED, generated=999, **on_paper)
    assert part.rows[2].value == expected / 1e6
    assert part.rows[4].value < 1.5, "one visit more than fits"


def test_a_filled_stream_is_where_a_decoded_one_is() -> None:
    shape = shapes.mini(quick=True)
    model = shape.build(**CPU)[1]
    streams = []
    for _ in range(2):
        cache = WandCache(shape.config, shape.window, pinned=endless.PINNED, blocks=2)
        streams.append(endless.Stream(model, cache, shape, codes=5))
    streams[0].fill(4)
    assert len(streams[1](4)) == 4
    filled, decoded = (stream.cache.layout.state for stream in streams)
    for name in ("length", "generated", "prefix_tokens", "rebuilt_length"):
        assert getattr(filled, name) == getattr(decoded, name)
    assert int(filled.block) == int(decoded.block) == 4
    assert streams[0].cache.nbytes == streams[1].cache.nbytes
    assert endless.most_blocks(shape, 1200, 75, 1e12) == 1200
    assert endless.most_blocks(shape, 1200, 75, 1.0) == len(endless.TEXTS)


@pytest.mark.slow
def test_texts_a_minute_are_counted() -> None:
    rows = {row.what: row.value for row in texts.texts(QUICK).rows}
    assert len(rows) == 6
    one, four = (rows[f"window, batch {batch}: texts a minute"] for batch in (1, 4))
    assert rows["window: batch 4 / one by one"] == pytest.approx(four / one)


def test_distillation_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in {"BATCH": 2, "PROMPT": 5, "GENERATED": 9}.items():
        monkeypatch.setattr(distillation, name, small)
    result = distillation.distillation(QUICK)
    assert [row.target for row in result.rows] == ["<= 1.7", ""] * 2
    assert all(math.isfinite(row.value) and row.value > 0 for row in result.rows)


def test_distillation_times_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two kinds of cross-entropy are the same number, the distilling loss another; each leaves gradients."""
    runners = distillation.step_runners(QUICK, bf16=False)
    found = {}
    for name in runners:
        backward = torch.Tensor.backward

        def note(loss: torch.Tensor, name: str = name, backward: Any = backward) -> None:
            found[name] = float(loss.detach())
            backward(loss)

        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "backward", note)
            assert runners[name](1)[0] > 0
    assert found[distillation.ENTROPY] == pytest.approx(found[distillation.STOCK_LOSS], rel=1e-4)
    assert found[distillation.DISTILLED] > found[distillation.ENTROPY]


def test_a_run_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON, figure and README of one run; the README then quotes the JSON."""
    readme = tmp_path / "README.md"
    readme.write_text("# x\n<!-- measured -->\nold\n<!-- end of measured -->\n", encoding="utf-8")
    for module in (command, report):
        monkeypatch.setattr(module, "README", readme)
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    result = command.run(["batch16"], QUICK)
    command.keep(result)
    name = report.file_name(report.machine("cpu"))
    stored = json.loads((tmp_path / "results" / f"{name}.json").read_text(encoding="utf-8"))
    targets = [row["target"] for row in stored["rows"]]
    assert targets == ["", "", ">= 1.5", "", ">= 3.0", ""] * 2, "32 and 16 bit, each beside the floor"
    assert report.report(stored) in readme.read_text(encoding="utf-8")
    assert (tmp_path / "results" / stored["figure"]).read_text(encoding="utf-8").startswith("<?xml")
    command.keep(command.run(["texts"], QUICK) | {"part": "texts"})
    apart = json.loads((tmp_path / "results" / f"{name}-texts.json").read_text(encoding="utf-8"))
    assert "figure" not in apart
    for one in (stored, apart):
        assert report.report(one) in readme.read_text(encoding="utf-8"), "one beside the other"


def test_figure_is_the_same_file_each_time(tmp_path: Path) -> None:
    sweep = {"title": "t", "seconds": [0, 10], "milliseconds": {STOCK: [1.0, 2.0], WINDOW: [1.0, 1.1]}, FLOOR: 0.9}
    figure = step_times(sweep)
    drawn = {str(line.get_label()): list(np.asarray(line.get_ydata())) for line in figure.axes[0].lines}
    assert drawn[WINDOW] == [1.0, 1.1]
    assert len(drawn) == 3
    for name in ("a.svg", "b.svg"):
        save(step_times(sweep), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def invoke(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(command.main)
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--write", "--quick"), "whole runs"),
        (("--write", "--only", "beams"), "whole runs"),
        (("--only", "nothing"), "no benchmark 'nothing'"),
        (("--only", "cuda", "--device", "cuda"), "finds no GPU"),
    ],
)
def test_refusals(arguments: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    outcome = invoke(*arguments)
    assert outcome.exit_code == 2
    assert told in outcome.output


def test_command_prints_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("here", "speed", 1.25, ">= 1.0")
    monkeypatch.setitem(command.ALL, "beams", lambda settings: report.Result([row]))
    outcome = invoke("--quick", "--only", "beams", "--threads", str(torch.get_num_threads()))
    assert outcome.exit_code == 0
    assert "| here | speed | 1.250 | >= 1.0 | met |" in outcome.output


# ---------------------------------------------------------------------------------------------------------------- GPU


def test_gpu_benchmark_runs(untraced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code, small and on a CPU: what it measures means nothing here."""
    monkeypatch.setattr(cuda, "BATCHES", (1,))
    monkeypatch.setattr(cuda, "SECONDS", (0.0, 10.0))
    result = cuda.cuda(QUICK)
    named = {row.what: row.value for row in result.rows}
    assert named[f"{STOCK}: largest batch (power of 2) after 180 s"] == 4
    assert all(math.isfinite(value) and value > 0 for value in named.values())


def test_largest_batch_stops_where_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Loop) -> None:
        if len(self.token) > 2:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(Loop, "__call__", step)
    assert cuda.largest_batch(STOCK, shapes.cosyvoice2(quick=True), 10, "cpu", most=64) == 2


def test_longest_decode_that_fits() -> None:
    shape = shapes.cosyvoice2(quick=False)
    tokens = {0: 0, 10: 250, 60: 1500, 180: 4500}
    entries = {s: 2 * 187 + n + min(n, 32) for s, n in tokens.items()}  # full and windowed
    needed = 2 * 12_288 * sum(entries[s] for s in (0, 10, 60))
    assert cuda.longest(shape, 1, needed) == 60
    assert cuda.longest(shape, 1, needed - 1) == 10
    assert cuda.longest(shape, 1, 10 * needed) == 180
    with pytest.raises(ValueError, match=r"batch 1 needs .* GB for 10 s"):
        cuda.longest(shape, 1, 1e6)
