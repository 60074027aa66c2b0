"""What PyPI shows: README without a link or a picture that needs the repository beside it."""

import importlib.util
import re

import pytest

pytest.importorskip("hatchling")
URL = "https://example.org/crispseg"
TARGETS = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def absolute(repository):
    spec = importlib.util.spec_from_file_location("hatch_build", repository / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.absolute


@pytest.fixture(scope="module")
def readme(repository):
    return (repository / "README.md").read_text()


def test_with_the_url_of_the_repository_every_link_and_picture_is_absolute(absolute, readme, repository):
    before, after = TARGETS.findall(readme), TARGETS.findall(absolute(readme, URL, "v1.2.3"))
    assert len(before) == len(after) and any(path.endswith(".webp") for path in before)
    for old, new in zip(before, after):
        if old.startswith(("https://", "#")):
            assert new == old
        else:
            assert (repository / old.partition("#")[0]).exists(), old
            assert new == f"{URL}/{'raw' if old.endswith('.webp') else 'blob'}/v1.2.3/{old}"


def test_without_one_links_become_words_and_nothing_is_relative(absolute, readme):
    text = absolute(readme, None, "v1.2.3")
    assert "![" not in text and "A scene, its truth, the prediction" in text
    assert all(target.startswith(("https://", "#")) for target in TARGETS.findall(text))
    assert absolute("See [the docs](docs/x.md#a), [arXiv](https://a.org) and [above](#top).", None, "v1") == (
        "See the docs, [arXiv](https://a.org) and [above](#top)."
    )


def test_it_is_the_long_description(repository):
    build = pytest.importorskip("hatchling.metadata.core")
    plugins = pytest.importorskip("hatchling.plugin.manager")
    found = build.ProjectMetadata(str(repository), plugins.PluginManager()).core
    assert found.readme_content_type == "text/markdown"
    assert found.readme.startswith("# crispseg") and "](docs/" not in found.readme
