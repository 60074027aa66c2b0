"""Every promise of SECURITY.md names tests, and they are there."""

import re


def test_every_promise_is_held_by_a_test_that_exists(repository):
    rows = [line for line in (repository / "SECURITY.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert re.search(rf"^def {test}\(", (repository / file).read_text(), re.MULTILINE), (file, test)
