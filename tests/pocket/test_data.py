"""Files of pairs: what is read, what is refused, how the probe is held out, how pairs are varied."""

import random
from pathlib import Path

import pytest

from tools.pocket.__main__ import main
from tools.pocket.augment import Swapper, copied_spans
from tools.pocket.data import DataError, Pair, key, read_pairs, split, write_pairs
from tools.pocket.sources import from_grammar, from_pairs


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{oops", "line 3: not JSON"),
        ("[1]", "line 3: not an object"),
        ('{"prompt": "secret words"}', 'line 3: "answer"'),
        ('{"prompt": " ", "answer": "b"}', 'line 3: "prompt"'),
        ('{"prompt": "secret words", "answer": "b", "count": -1}', 'line 3: "count"'),
        ('{"prompt": "secret words", "answer": "b", "count": NaN}', 'line 3: "count"'),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_not_quoted(tmp_path: Path, line: str, complaint: str) -> None:
    """The person learns where to look, and the text of the line stays out of the message."""
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "a", "answer": "b"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=complaint) as caught:
        read_pairs(file)
    assert "secret" not in str(caught.value)


def test_the_tool_ends_with_a_message_on_bad_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing or empty file is a usage error and not a traceback."""
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for path in (empty, tmp_path / "missing.jsonl"):
        assert main(["--data", str(path), "--out", str(tmp_path / "base.gguf"), "--minutes", "0.01"]) == 2
        assert str(path) in capsys.readouterr().err


def test_pairs_survive_writing_and_reading(tmp_path: Path) -> None:
    """What is written is read back, whatever the script."""
    pairs = [Pair("grüße an 漢字", 'message.send(to="漢字")'), Pair("a\tb", "c")]
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs


def test_the_probe_shares_no_prompt_with_training() -> None:
    """Prompts that differ in case or closing mark are one prompt; five per cent are held out."""
    pairs = [Pair(f"{word} {index}{mark}", "x") for index in range(100) for word in ("go", "Go") for mark in ("", ".")]
    train, probe = split(pairs, 0)
    assert len(probe) == 5
    assert len(train) == 400 - 20
    assert not {key(pair.prompt) for pair in train} & {key(pair.prompt) for pair in probe}


def test_no_source_ever_gives_a_held_out_prompt() -> None:
    """Neither the grammar nor a swapped pair can bring a held-out prompt back."""
    held = from_grammar(1, [])(200)
    drawn = from_grammar(1, held)(2000)
    assert not {key(pair.prompt) for pair in drawn} & {key(pair.prompt) for pair in held}
    pairs = [Pair("add red", "add red here"), Pair("add blue", "add blue here")]
    varied = from_pairs(pairs[:1], 0, pairs[1:], augmented=1.0)(200)
    assert {pair.prompt for pair in varied} == {"add red"}


def test_a_copied_value_is_exchanged_in_request_and_answer() -> None:
    """Values are swapped, command words and keys are not."""
    pairs = [
        Pair("put jazz hits on my list", "Add(name: jazz hits, list_owner: my)"),
        Pair("put slow songs on her list", "Add(name: slow songs, list_owner: her)"),
    ]
    assert copied_spans(pairs[0]) == {"jazz hits": ("name", ":"), "my": ("list_owner", ":")}
    swapper, rng = Swapper(pairs), random.Random(0)
    prompts = {swapper.swap(pairs[0], rng).prompt for _ in range(100)}
    assert prompts == {f"put {name} on {owner} list" for name in ("jazz hits", "slow songs") for owner in ("my", "her")}
    assert all(pair.answer.startswith("Add(name: ") and ", list_owner: " in pair.answer for pair in
               (swapper.swap(pairs[0], rng) for _ in range(20)))  # fmt: skip
