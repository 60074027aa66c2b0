"""How benchmarks measure: turns, how many, and the commit that a row is stamped with."""

import subprocess

import pytest

from benchmarks import measure


def test_rivals_take_turns_and_there_are_five_rounds_however_slow():
    order = []
    rivals = {name: lambda name=name: order.append(name) for name in "ab"}
    times = measure.interleaved(rivals, seconds=0, least=1)
    assert "".join(order) == "ab" * 6  # the first is not timed
    assert measure.calls(times) == 5
    assert measure.calls(measure.interleaved(rivals, seconds=0, least=7)) == 7


def test_a_median_is_of_what_the_clock_said():
    ticks = iter([0, 1, 1, 4, 4, 6, 6, 106, 106, 108])
    times = measure.interleaved({"x": lambda: None}, seconds=0, clock=lambda: next(ticks))
    assert times == {"x": [1, 3, 2, 100, 2]}
    assert measure.medians(times) == {"x": 2}


@pytest.mark.parametrize(("numbers", "said"), [([5], "5"), ([9, 5, 7], "5 to 9")])
def test_the_number_of_calls_is_said_in_words(numbers, said):
    assert measure.spread(numbers) == said


def test_only_a_changed_source_makes_the_commit_another(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e", *words], check=True)

    files = ["src/a.py", "benchmarks/b.py", "benchmarks/results/b.json", "experiments/results/x/c.json", "docs/page.md"]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    plain = measure.commit(tmp_path)
    assert len(plain) >= 7 and not plain.endswith("+")
    for file in (*files[2:], "benchmarks/results/new.json"):
        (tmp_path / file).write_text("2")
        assert measure.commit(tmp_path) == plain, file
    for file in (*files[:2], "src/new.py"):
        (tmp_path / file).write_text("2")
        assert measure.commit(tmp_path) == f"{plain}+", file
        git("stash", "-q", "-u")
    assert measure.commit(tmp_path) == plain
