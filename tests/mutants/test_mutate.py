"""The table of mutants fits the source, and the command that runs them tells killed, survived and broken apart."""

import mutate
import pytest
from mutate import Mutant

TREE = {
    "pyproject.toml": "",
    "src/half.py": "def half(n):\n    return n / 2\n",
    "tests/test_half.py": "from half import half\n\ndef test_half():\n    assert half(4) == 2\n",
}


def test_every_mutant_changes_one_place_of_the_source_and_names_tests_that_exist(repository):
    mutants = mutate.read()
    assert len({(m.file, m.old, m.new) for m in mutants}) == len(mutants) > 100
    for mutant in mutants:
        assert (repository / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1, f"no longer: {mutant}"
        assert mutant.old != mutant.new
        assert mutant.tests and all((repository / test.partition("::")[0]).exists() for test in mutant.tests)


@pytest.mark.slow
def test_a_mutant_is_killed_survives_or_is_broken_and_the_tree_is_left_alone(tmp_path, monkeypatch, capsys):
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    changes = {"killed": "n / 3", "survived": "n / 2.0", "broken": "n / ("}
    monkeypatch.setattr(mutate, "ROOT", tmp_path)
    monkeypatch.setattr(mutate, "SLOW_TO_IMPORT", ("pytest",))
    for code, chosen in ((0, ["killed"]), (1, ["killed", "survived"]), (2, ["broken", "survived"])):
        mutants = [Mutant("src/half.py", "n / 2", changes[name], ("tests/test_half.py",)) for name in chosen]
        monkeypatch.setattr(mutate, "read", lambda mutants=mutants: mutants)
        assert mutate.main([]) == code
        said = capsys.readouterr().out
        assert (
            all(f"{name} " in said for name in chosen) and f"{chosen.count('killed')} of {len(chosen)} killed" in said
        )
    assert (tmp_path / "src/half.py").read_text() == TREE["src/half.py"]
    (tmp_path / "tests/test_half.py").write_text("import pytest\npytest.importorskip('no_such_package')\n")
    assert mutate.main([]) == 0
    assert f"0 of 0 killed, {len(chosen)} skipped" in capsys.readouterr().out
    (tmp_path / "tests/test_half.py").write_text("def test_half():\n    assert False\n")
    assert mutate.main([]) == 2
    assert "no mutant was run" in capsys.readouterr().out


def test_a_mutant_whose_text_is_gone_is_told(tmp_path):
    (tmp_path / "m.py").write_text("a\na\n")
    for old, times in (("a", 2), ("b", 0)):
        with pytest.raises(ValueError, match=f"expected once, found {times} times"):
            Mutant("m.py", old, "c", ()).apply(tmp_path)
