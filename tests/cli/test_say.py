"""``wandlib say`` and ``compare`` as a user types them, on a system that beeps."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_system import STEPS_PER_WORD, FakeSystem
from typer.testing import CliRunner

import wandlib
from wandlib.cli import app as cli
from wandlib.cli.say import check_output
from wandlib.cli.sinks import PLAYERS, FileSink
from wandlib.systems import registry
from wandlib.systems.base import InputError, Trace

SAMPLES_PER_WORD = STEPS_PER_WORD * 640
SAY = [sys.executable, "-m", "wandlib", "say"]
"""The command in a process of its own."""


class Forgetful(FakeSystem):
    """Finds no end for "endless", and is stopped after "one" by the user or by an error."""

    def codes(self, utterance: Any, trace: Trace, on_step: Any) -> Any:
        yield from super().codes(utterance, trace, on_step)
        if self.requests[-1]["text"] == "endless":
            trace.finish = "limit"

    def utterances(self, texts: Any, *arguments: Any, **settings: Any) -> Any:
        for text in texts:
            if text.startswith("one, then "):
                yield from super().utterances(iter(["one"]), *arguments, **settings)
                if "term" in text:
                    os.kill(os.getpid(), signal.SIGTERM)
                raise KeyboardInterrupt if "stop" in text else InputError("bad")
            yield from super().utterances(iter([text]), *arguments, **settings)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    system = Forgetful()
    system.loaded = []  # type: ignore[attr-defined]

    def load(name: str, folder: Path | None, *, device: str, student: Path | None = None) -> FakeSystem:
        system.loaded.append((name, folder, device))  # type: ignore[attr-defined]
        return system

    monkeypatch.setattr("wandlib.cli.options.load_system", load)
    return system


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake: FakeSystem) -> Any:
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, given: bytes | None = None) -> Any:
        return CliRunner().invoke(cli.app, ["say", *arguments], input=given)

    return invoke


def said(result: Any) -> str:
    return " ".join(result.output.split())


def test_a_text_goes_to_a_file(run: Any) -> None:
    result = run("one two", "-o", "out/two.flac", "--seed", "3")
    assert result.exit_code == 0, result.output
    samples, rate = soundfile.read("out/two.flac")
    assert (len(samples), rate) == (2 * SAMPLES_PER_WORD, 16_000)
    assert "out/two.flac: 0.8 s" in said(result)
    assert "first sound after" in said(result)


def test_no_file_is_written_over_without_force(run: Any, fake: FakeSystem) -> None:
    Path("speech.wav").write_text("precious", encoding="utf-8")
    refused = run("one")
    assert refused.exit_code == 1
    assert "'speech.wav' exists: name another file, or write over it with --force" in said(refused)
    assert fake.requests == []
    assert run("one", "--force").exit_code == 0
    assert len(soundfile.read("speech.wav")[0]) == SAMPLES_PER_WORD


def test_compare_writes_over_nothing_either(run: Any) -> None:
    Path("window.wav").write_text("precious", encoding="utf-8")
    refused = CliRunner().invoke(cli.app, ["compare", "one"])
    assert refused.exit_code == 1
    assert "'window.wav' exists" in said(refused)
    assert not Path("full.wav").exists()
    assert CliRunner().invoke(cli.app, ["compare", "one", "-f"]).exit_code == 0


def test_standard_input_is_spoken_as_it_comes(run: Any, fake: FakeSystem) -> None:
    result = run("-", "-o", "lines.wav", given="One two.\nThree caf\u00e9 four".encode())
    assert result.exit_code == 0, result.output
    assert [request["text"] for request in fake.requests] == ["One two.", "Three caf\u00e9 four"]
    assert len(soundfile.read("lines.wav")[0]) == 5 * SAMPLES_PER_WORD


def test_sound_of_lines_before_an_error_is_kept(run: Any) -> None:
    result = run("-", "-o", "lines.wav", given=b"One two.\nno \xff text\n")
    assert result.exit_code == 1
    assert "line 2 of standard input is not UTF-8 text" in said(result)
    assert len(soundfile.read("lines.wav")[0]) == 2 * SAMPLES_PER_WORD


@pytest.mark.parametrize(("ending", "status"), [("stop", 130), ("bad", 1), ("term", 143)])
def test_sound_made_before_an_end_is_in_the_file(run: Any, ending: str, status: int) -> None:
    before = signal.getsignal(signal.SIGTERM)
    result = run(f"one, then {ending}", "-o", "one.flac")
    assert result.exit_code == status
    assert "ended before the text did: 0.4 s of it were spoken" in said(result)
    assert len(soundfile.read("one.flac")[0]) == SAMPLES_PER_WORD
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_wav_is_whole_at_any_moment(tmp_path: Path) -> None:
    sink, sound = FileSink(tmp_path / "a.wav", 16_000), np.sin(np.arange(1_000, dtype=np.float32))
    for number in range(4):
        with wave.open(str(tmp_path / "a.wav"), "rb") as file:
            assert (file.getnframes(), file.getframerate(), file.getnchannels()) == (1_000 * number, 16_000, 1)
        samples, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
        np.testing.assert_allclose(samples, np.tile(sound, number), atol=1e-4)
        sink.write(sound)
    sink.close()
    assert (tmp_path / "a.wav").stat().st_size == 44 + 8_000


@pytest.mark.parametrize("ending", [".wav", ".flac"])
def test_a_file_that_has_come_meanwhile_is_not_written_over(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"speech{ending}"
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match="exists: name another file"):
        FileSink(path, 16_000)
    assert path.read_text(encoding="utf-8") == "precious"
    sink = FileSink(path, 16_000, force=True)
    sink.write(np.zeros(100, np.float32))
    sink.close()
    assert len(soundfile.read(path)[0]) == 100


def test_a_long_piece_to_ogg(run: Any) -> None:
    """Longer than what libvorbis takes at once."""
    assert run("word " * 1_000, "-o", "long.ogg").exit_code == 0
    assert len(soundfile.read("long.ogg")[0]) == 1_000 * SAMPLES_PER_WORD


def test_a_full_disk_is_one_line(run: Any) -> None:
    Path("full.flac").symlink_to("/dev/full")
    result = run("one", "-o", "full.flac", "--force")
    assert result.exit_code == 1
    assert "error: cannot write 'full.flac'" in said(result)


def test_an_error_is_one_line_however_long_the_path_in_it(run: Any) -> None:
    """A path that is cut in two can be neither copied nor searched for."""
    name = f"{'long_' * 30}.flac"
    Path(name).symlink_to("/dev/full")
    result = run("one", "-o", name, "--force")
    assert f"error: cannot write '{name}'" in result.output


def test_nothing_on_standard_input(run: Any) -> None:
    result = run("-", given=b"\n \n")
    assert result.exit_code == 1
    assert "nothing to say" in said(result)
    assert list(Path().iterdir()) == []


def test_wav_on_standard_output(run: Any, fake: FakeSystem) -> None:
    """Nothing else is there, and a reader of streams takes all of it."""
    result = run("one two", "-o", "-", "-a", "full")
    assert result.exit_code == 0, result.output
    header, data = result.stdout_bytes[:44], result.stdout_bytes[44:]
    assert header[:4] + header[8:16] == b"RIFFWAVEfmt "
    samples = np.frombuffer(data, "<i2") / 32767
    np.testing.assert_allclose(samples, fake.synthesize("one two").waveform, atol=1e-4)
    whole = header[:40] + len(data).to_bytes(4, "little") + data
    read, rate = soundfile.read(io.BytesIO(whole))
    assert (len(read), rate) == (len(samples), 16_000)
    assert "standard output: 0.8 s" in said(result).replace("\ufffd", "")


def test_play_gives_the_sound_to_a_player(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    player = folder / "aplay"
    player.write_text(f"#!{sys.executable}\nimport sys\nopen('heard', 'wb').write(sys.stdin.buffer.read())\n")
    player.chmod(player.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))
    result = run("one two", "--play")
    assert result.exit_code == 0, result.output
    assert Path("heard").stat().st_size == 44 + 2 * 2 * SAMPLES_PER_WORD
    assert not Path("speech.wav").exists()
    assert run("one two", "--play", "-o", "both.wav").exit_code == 0
    assert Path("both.wav").exists()
    player.write_text(f"#!{sys.executable}\nraise SystemExit(7)\n")
    failed = run("one two", "--play")
    assert failed.exit_code == 1
    assert "aplay" in said(failed)
    assert "status 7" in said(failed)


def test_play_without_a_player(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run("one", "--play")
    assert result.exit_code == 1
    assert f"no player is installed: install one of {', '.join(PLAYERS)}" in said(result)


@pytest.mark.parametrize("command", [["say", "endless"], ["compare", "endless"]])
def test_the_length_limit_is_told_and_has_a_status_of_its_own(run: Any, command: list[str]) -> None:
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 3
    assert "the length limit ended a sentence" in said(result)
    assert len(list(Path().glob("*.wav"))) == len(command[0]) // 3  # one file of say, two of compare


def test_speakers_and_version(run: Any, fake: Any) -> None:
    result = run("--list-speakers", "--system", "fake", "--checkpoint", "somewhere", "--device", "cuda:3")
    assert result.stdout.split() == ["low", "high"]
    assert fake.loaded == [("fake", Path("somewhere"), "cuda:3")]
    version = CliRunner().invoke(cli.app, ["--version"])
    assert (version.exit_code, version.stdout) == (0, f"wandlib {wandlib.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([""], "the text is empty"),
        ([" \n"], "the text is empty"),
        (["caf\udce9"], r"the text holds '\udce9' at position 3, half of a character"),
        ([], "nothing to say: give a text"),
        (["one", "-o", "one.mp4"], "name a .wav, .flac or .ogg file"),
        (["one", "-o", "folder.wav"], "it is a folder; name a file"),
        (["one", "--to", "folder.wav"], "--from and --to belong together"),
        (["one", "--speaker", "nobody"], "no speaker named 'nobody': there are low, high"),
        (["one", "-w", "0"], "at least 1 key"),
    ],
)
def test_errors_are_one_line(run: Any, arguments: list[str], words: str) -> None:
    Path("folder.wav").mkdir()
    result = run(*arguments)
    assert result.exit_code == 1
    assert words in said(result)
    assert "Traceback" not in result.output


def test_a_text_is_checked_before_a_system_is_loaded(run: Any, fake: Any) -> None:
    run("")
    run("caf\udce9")
    run("one", "-o", "one.mp4")
    assert fake.loaded == []


def texts(*lines: dict[str, Any]) -> None:
    Path("texts.jsonl").write_text("\n\n".join(map(json.dumps, lines)), encoding="utf-8")


def manifest(name: str = "manifest.jsonl") -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in map(json.loads, (Path("to") / name).read_text().splitlines())}


def many(run: Any, *arguments: str) -> Any:
    return run("--from", "texts.jsonl", "--to", "to", *arguments)


def test_many_texts_to_many_files(run: Any, fake: FakeSystem) -> None:
    texts({"text": "one two", "speaker": "high"}, {"text": "three", "id": "third"}, {"text": " "}, {"text": "endless"})
    result = many(run, "--speaker", "low", "--seed", "2")
    assert result.exit_code == 1
    assert "to: 3 made, 1 ended by the length limit, 1 failed; see manifest.jsonl" in said(result)
    written = manifest()
    assert {name: entry["error"] is None for name, entry in written.items()} == {
        "000001": True, "third": True, "000005": False, "000007": True,
    }  # fmt: skip
    assert "the text is empty" in written["000005"]["error"]
    assert (written["third"]["file"], written["third"]["seconds"], written["third"]["finish"]) == (
        "third.wav",
        0.4,
        "end",
    )
    assert written["000007"]["finish"] == "limit"
    assert written["third"]["settings"]["seed"] == "2"
    assert len(soundfile.read("to/000001.wav")[0]) == 2 * SAMPLES_PER_WORD
    assert [request["reference"] for request in fake.requests] == ["high", "low", "low", "low"]
    assert not list(Path("to").glob(".*"))


def test_a_run_goes_on_where_it_was(run: Any, fake: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    texts({"text": "one"}, {"text": "two"}, {"text": "three"})
    with monkeypatch.context() as patch:
        patch.setattr(FakeSystem, "_frequency", lambda self, reference: 1 / 0 if len(self.requests) > 1 else 220.0)
        assert isinstance(many(run).exception, ZeroDivisionError)
    assert sorted(path.name for path in Path("to").glob("*.wav")) == ["000001.wav"]
    fake.requests.clear()
    result = many(run)
    assert result.exit_code == 0, result.output
    assert [request["text"] for request in fake.requests] == ["two", "three"]
    assert "2 made, 1 were there" in said(result)
    fake.loaded.clear()  # type: ignore[attr-defined]
    assert many(run).exit_code == 0
    assert fake.loaded == []  # type: ignore[attr-defined]


def test_what_failed_is_tried_again_and_what_changed_is_refused(run: Any) -> None:
    texts({"text": "one"}, {"text": " "})
    assert many(run).exit_code == 1
    texts({"text": "one"}, {"text": "two"})
    assert many(run).exit_code == 0
    for change in (["--seed", "5"], []):
        if not change:
            texts({"text": "another"}, {"text": "two"})
        refused = many(run, *change)
        assert refused.exit_code == 1
        assert "was made from another text, model or reference, or with other settings" in said(refused)
    assert many(run, "--force").exit_code == 0
    assert manifest()["000001"]["text"] == "another"
    Path("to/000003.wav").unlink()
    assert many(run).exit_code == 0
    assert Path("to/000003.wav").exists()


def model(folder: Path, weights: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(weights)
    return folder


def test_another_model_or_reference_is_refused_and_a_change_in_place_as_well(run: Any, fake: FakeSystem) -> None:
    """A student or none, and what student, checkpoint and reference hold; notes beside a model do not count."""
    model(Path("checkpoint"), "random"), model(Path("checkpoint/LLM"), "published")
    first, other = model(Path("first"), "trained"), model(Path("other"), "trained")
    fake.synthesize("one").save("voice.wav")
    texts({"text": "one"}, {"text": "two", "reference": "voice.wav"})
    spoken = ["--checkpoint", "checkpoint", "--student"]
    assert many(run, *spoken, str(first)).exit_code == 0
    (first / "report.json").write_text("{}")
    assert "0 made, 2 were there" in said(many(run, *spoken, str(first)))
    changes = [
        lambda: model(first, "retrained"),
        lambda: (first / "config.json").write_text('{"wand": {"window": 2}}'),
        lambda: model(Path("checkpoint/LLM"), "another release"),
        lambda: fake.synthesize("one two").save("voice.wav"),
    ]
    for change in changes:
        change()
        refused = many(run, *spoken, str(first))
        assert refused.exit_code == 1
        assert "was made from another text, model or reference" in said(refused)
        assert "2 made" in said(many(run, *spoken, str(first), "--force"))
        assert "0 made, 2 were there" in said(many(run, *spoken, str(first)))
    assert "another text, model" in said(many(run, *spoken, str(other)))
    assert "another text, model" in said(many(run, "--checkpoint", "checkpoint"))


def test_another_shipped_voice_is_refused(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an upgrade of the package; to install the same again changes nothing."""
    monkeypatch.setitem(registry.SHIPPED, "mini", model(Path("assets"), "of this release"))
    texts({"text": "one"})
    assert many(run).exit_code == 0
    os.utime("assets/model.safetensors", (1, 1))
    monkeypatch.setitem(registry.SHIPPED, "mini", Path("assets").rename("elsewhere"))
    assert "0 made, 1 were there" in said(many(run))
    model(Path("elsewhere"), "of the next release")
    assert "was made from another text, model or reference" in said(many(run))


def test_one_cache_is_not_for_many(run: Any, fake: Any) -> None:
    texts({"text": "one"})
    refused = many(run, "--long", "one cache")
    assert refused.exit_code == 1
    assert "is decoded alone, and --from in batches" in said(refused)
    assert fake.loaded == []


def test_force_makes_every_text_anew(run: Any, fake: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each of several processes, too; a text that then fails keeps the sound that it had."""
    texts(*({"text": f"word {n}"} for n in range(3)))
    assert many(run).exit_code == 0
    fake.requests.clear()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, count in (("0", 2), ("1", 1)):
        monkeypatch.setenv("RANK", rank)
        assert f"{count} made" in said(many(run, "--force"))
    assert [request["text"] for request in fake.requests] == ["word 0", "word 2", "word 1"]
    with monkeypatch.context() as patch:
        patch.setattr(FakeSystem, "_frequency", lambda self, reference: 1 / 0)
        assert isinstance(many(run, "--force").exception, ZeroDivisionError)
    assert "0 made, 1 were there" in said(many(run))


def test_an_end_while_sound_is_written_over_leaves_none(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the manifest would say of old sound that it is the new one."""
    texts({"text": "one"})
    assert many(run).exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, target: 1 / 0)
        assert isinstance(many(run, "--seed", "1", "--force").exception, ZeroDivisionError)
    assert "1 made" in said(many(run, "--seed", "1"))


def test_a_file_of_another_origin_stays(run: Any) -> None:
    texts({"text": "one"})
    Path("to").mkdir()
    Path("to/000001.wav").write_text("precious", encoding="utf-8")
    refused = many(run)
    assert refused.exit_code == 1
    assert "is of another origin" in said(refused)
    assert Path("to/000001.wav").read_text(encoding="utf-8") == "precious"


def test_several_processes_share_the_texts(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    texts(*({"text": f"word {n}"} for n in range(5)))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert many(run).exit_code == 0
    assert [len(manifest(f"manifest-{rank}.jsonl")) for rank in (0, 1)] == [3, 2]
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    assert "0 made, 5 were there" in said(many(run))


def test_the_last_success_counts_whichever_process_had_it(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifests of several processes are read before that of one, but they are not older for that."""

    def refuse(self: FakeSystem, reference: object) -> float:
        raise InputError("no such reference")

    def in_several_processes(*arguments: str) -> Any:
        with monkeypatch.context() as patch:
            patch.setenv("WORLD_SIZE", "2")
            patch.setenv("RANK", "0")
            return many(run, *arguments)

    texts({"text": "one"})
    with monkeypatch.context() as patch:
        patch.setattr(FakeSystem, "_frequency", refuse)
        assert many(run).exit_code == 1
    assert in_several_processes().exit_code == 0
    assert "0 made, 1 were there" in said(many(run))
    assert many(run, "--seed", "1", "--force").exit_code == 0
    assert in_several_processes("--seed", "2", "--force").exit_code == 0
    assert "with other settings" in said(many(run, "--seed", "1"))
    with monkeypatch.context() as patch:
        patch.setattr(FakeSystem, "_frequency", refuse)
        assert many(run, "--seed", "3", "--force").exit_code == 1
    assert "0 made, 1 were there" in said(many(run, "--seed", "2"))


@pytest.mark.parametrize("line", [b'{"audio_filepath": "a.wav", "text": "b"}', b"[1]", b"caf\xe9", b'{"id": "000001"}'])
def test_a_manifest_of_others_is_neither_read_nor_written(run: Any, fake: FakeSystem, line: bytes) -> None:
    Path("to").mkdir()
    Path("to/manifest.jsonl").write_bytes(line + b"\n")
    texts({"text": "one"})
    assert "'to/manifest.jsonl' is no manifest of wandlib: name another folder" in said(many(run))
    assert Path("to/manifest.jsonl").read_bytes() == line + b"\n"
    assert fake.requests == []


def test_standard_output_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(InputError, match="standard output, which is closed"):
        check_output(Path("-"), play=False, force=False)


def test_a_line_that_a_run_died_in_is_left_out(run: Any, fake: FakeSystem) -> None:
    texts({"text": "one"}, {"text": "two"})
    assert many(run).exit_code == 0
    written = Path("to/manifest.jsonl").read_text(encoding="utf-8")
    Path("to/manifest.jsonl").write_text(written[:-20], encoding="utf-8")
    Path("to/000003.wav").unlink()
    fake.requests.clear()
    for outcome in ("1 made, 1 were there", "0 made, 2 were there"):
        result = many(run)
        assert "line 2 of 'to/manifest.jsonl' is not complete JSON" in said(result)
        assert outcome in said(result)
    assert [request["text"] for request in fake.requests] == ["two"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no texts in 'texts.jsonl'"),
        ("{", "line 1 of 'texts.jsonl' is no JSON"),
        ("[1]", "line 1 of 'texts.jsonl' has no text"),
        ('{"text": 3}', "has no text"),
        ('{"text": "one", "voice": "low"}', "sets voice: there are id, reference, set, speaker, text, transcript"),
        ('{"text": "one", "id": "../one"}', "has the id '../one', which is to be a file's name"),
        ('{"text": "one", "id": ".one"}', "has the id '.one'"),
        (json.dumps({"text": "one", "id": "x" * 201}), "alone, at most 200, and"),
        ('{"text": "a", "id": "x"}\n{"text": "b", "id": "x"}', "lines 1 and 2 of 'texts.jsonl' have the same id, 'x'"),
        ('{"text": "a", "id": "x"}\n{"text": "b", "id": "X"}', "lines 1 and 2 of 'texts.jsonl' have the same id, 'X'"),
        ('{"text": "one", "id": "con"}', "and no device of Windows"),
        ('{"text": "one", "id": "Lpt1.b"}', "and no device of Windows"),
        ("[" * 100_000, "line 1 of 'texts.jsonl' is no JSON"),
        ('{"text": "one", "speaker": "low", "reference": "a.wav"}', "names a speaker and a reference"),
    ],
)
def test_texts_that_cannot_be_read(run: Any, fake: Any, content: str, words: str) -> None:
    Path("texts.jsonl").write_text(content, encoding="utf-8")
    result = many(run)
    assert result.exit_code == 1
    assert words in said(result)
    assert fake.loaded == []


def test_half_of_a_character_in_a_line_is_a_failure_of_that_line(run: Any) -> None:
    Path("texts.jsonl").write_text('{"text": "caf\\udce9"}\n{"text": "fine"}', encoding="utf-8")
    assert many(run).exit_code == 1
    assert "half of a character" in manifest()["000001"]["error"]
    assert Path("to/000002.wav").exists()


@pytest.mark.slow
def test_bytes_that_are_no_utf8_on_the_real_command_line(tmp_path: Path) -> None:
    """Latin-1 in an argument, and a stream through a real pipe."""
    options: Any = {"cwd": tmp_path, "capture_output": True, "check": False}
    refused = subprocess.run([*SAY, b"caf\xe9"], **options)
    assert refused.returncode == 1
    assert b"half of a character" in b" ".join(refused.stderr.split())
    assert b"Traceback" not in refused.stderr
    made = subprocess.run([*SAY, "-", "-o", "-"], input=b"Hello.\n", **options)
    assert made.returncode == 0
    assert len(made.stdout) > 44 + 16_000


@pytest.mark.slow
def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path) -> None:
    """``wandlib say ... -o - | head -c 1000``: the pipe is closed while there is more to say."""
    command = [*SAY, " ".join(["Once more, then."] * 20), "-o", "-"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as speaking:
        assert speaking.stdout is not None
        assert speaking.stderr is not None
        assert speaking.stdout.read(1000).startswith(b"RIFF")
        speaking.stdout.close()
        told = speaking.stderr.read().decode()
    assert speaking.returncode == 1
    assert "ended before the text did" in told
    assert "error" not in told.lower()
    assert "Traceback" not in told
