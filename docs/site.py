"""What the docs site has beside the pages of ``docs``: README, CONTRIBUTING, notebooks, reference, map of the house.

mkdocs calls the hooks below (``mkdocs.yml``). All of it is made from the code and the files of the repository, so that
nothing is written twice. Links to files that are no page (sources, configs, results) become their paths; formulas
become MathML, which browsers draw without a script.
"""

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "crispseg"
NOTEBOOKS = ROOT / "examples" / "notebooks"
NAMES = ROOT / "tests" / "architecture" / "public_names.txt"
DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
"""A doctest and what it prints: up to the next empty line."""


def on_config(config: Any) -> Any:
    """Put a page a module into the reference."""
    for entry in config.nav:
        if entry.get("Reference") == "reference":
            entry["Reference"] = [{module: f"reference/{module}.md"} for module in public_names()]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    pages = {
        "index.md": (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "]("),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("](docs/", "]("),
        "house.md": house(),
        **{f"notebooks/{path.stem}.md": notebook(path) for path in NOTEBOOKS.glob("*.ipynb")},
        **{f"reference/{module}.md": reference(module, names) for module, names in public_names().items()},
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Formulas become MathML, links out of the site become paths."""
    markdown = re.sub(r"\$\$(.+?)\$\$", lambda m: convert(m[1], display="block"), markdown, flags=re.DOTALL)
    folder = Path(page.file.src_uri).parent

    def link(match: re.Match[str]) -> str:
        words, target = match[1], match[2].partition("#")[0]
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        inside = Path("docs") / folder / target
        place = Path(*_resolved(inside.parts))
        known = "docs" in place.parts[:1] and files.get_file_from_path(str(Path(*place.parts[1:])))
        if known or (place.is_relative_to("docs") and (ROOT / place).is_file() and place.suffix != ".py"):
            return match[0]
        if files.get_file_from_path("contributing.md") and target.endswith("CONTRIBUTING.md"):
            return f"[{words}](contributing.md)"
        path = target if page.file.generated_by else str(place)
        return f"{words} (`{path}`)" if words.strip("`") not in path else f"`{path}`"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", link, markdown)


def public_names() -> dict[str, list[str]]:
    """Return module -> its public names, as pinned."""
    found: dict[str, list[str]] = {}
    for line in NAMES.read_text(encoding="utf-8").split():
        module, _, name = line.rpartition(".")
        found.setdefault(module, []).append(name)
    return found


def reference(module: str, names: list[str]) -> str:
    """The page of a module: what it is, and each public name."""
    entries = [
        f"::: {module}.{name}" for name in names if not name.startswith("__") and f"{module}.{name}" != "crispseg.nn"
    ]
    return "\n\n".join([f"# {module}", first_line(_file(module)), *entries])


def notebook(path: Path) -> str:
    """The page of a notebook: its words, its code, what it printed and what it drew."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if output["output_type"] == "stream":
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            elif "image/webp" in data:
                parts.append(
                    f'<img alt="What the cell drew" src="data:image/webp;base64,{data["image/webp"].strip()}">'
                )
            elif "text/html" in data:
                parts.append("".join(data["text/html"]))
    return "\n\n".join([*parts, f"This page is the notebook `{path.relative_to(ROOT)}`."])


def house() -> str:
    """The map of the house: floors from ``pyproject.toml``, each room with the first line of what is in it."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    lines = [
        "# Architecture",
        "The code has layers, called floors. A module imports only from the floors below its own. The top floor comes "
        "first. `pyproject.toml` has the list, and a test checks it; `docs/site.py` draws this page from the code.",
    ]
    for floor in contract["layers"]:
        rooms = re.findall(r"\w+", floor)
        lines += [f"## {', '.join(rooms)}", "| file | what lives there |\n|---|---|"]
        for room in rooms:
            place = SOURCE / room
            files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
            rows = [(file.relative_to(SOURCE), first_line(file)) for file in files]
            lines[-1] += "".join(f"\n| `{path}` | {escaped(said)} |" for path, said in rows)
    return "\n\n".join(lines)


def escaped(text: str) -> str:
    """Text for a cell of a table: no column ends, no links."""
    return text.replace("|", "¦").replace("[", "\\[")


def first_line(file: Path) -> str:
    """The first paragraph of a file's docstring, in a line; what a command's help says before its first example."""
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    words = re.split(r":?\n(?:  crispseg |\n)", said)[0].split()
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", " ".join(words)).replace("``", "`")


def _file(module: str) -> Path:
    path = ROOT / "src" / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _resolved(parts: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for part in parts:
        if part == "..":
            found = found[:-1]
        elif part != ".":
            found.append(part)
    return found


class Docstrings(griffe.Extension):
    """Docstrings as Markdown: doctests outside of a section become code, Sphinx's roles become code, too."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object."""
        if obj.docstring is None:
            return
        text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", obj.docstring.value)
        if not re.search(r"^Examples\n-+$", text, re.MULTILINE):
            text = DOCTEST.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", text)
        obj.docstring.value = text
