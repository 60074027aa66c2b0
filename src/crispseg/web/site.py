"""``make_site``: the files of the page, by name; ``write_site``: a folder of them.

    index.html, style.css, page.js, …    the page, as it lies in this package
    model.json                           what the page has to know: classes, colours, sizes
    model.onnx, refiner.onnx             the networks
    ort-1.30.0/                          onnxruntime-web

The page computes everything. What it is written with says nothing of the machine that it was trained on.

Not here: serving (``server``), the runtime's files (``runtime``).
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crispseg import config as configs
from crispseg._version import __version__
from crispseg.data.labels import full_palette
from crispseg.errors import UsageError
from crispseg.exported import Facts, read_exported
from crispseg.exported.facts import seal
from crispseg.exported.runtimes import needs
from crispseg.exporting import onnx_file
from crispseg.files import write_bytes
from crispseg.web.runtime import VERSION, runtime_files

PAGE = Path(__file__).with_name("page")
Site = Mapping[str, bytes]
"""The files of a page, by their path in its folder."""


def make_site(
    model: str | os.PathLike[str], *, name: str | None = None, ort: str | os.PathLike[str] | None = None
) -> dict[str, bytes]:
    """Return the files of a page that runs an exported network, by their path in its folder.

    Parameters
    ----------
    model
        An ``.onnx`` file of ``crispseg export``.
    name
        The page's title; None: the name of the file.
    ort
        Where the files of onnxruntime-web are: see :func:`crispseg.web.runtime.runtime_files`. None: the user's cache,
        or npm's registry.

    Raises
    ------
    UsageError
        No such file, or another kind; a package for ONNX is missing.
    DataError
        It is no file of ``crispseg export``, or damaged; ``ort`` has not the files.
    CrispsegError
        onnxruntime-web cannot be fetched.

    Examples
    --------
    ::

        write_site(make_site("model.onnx"), "site")             # then, in that folder: python -m http.server
        make_server(make_site("model.onnx")).serve_forever()    # or at http://127.0.0.1:7860/
    """
    path = Path(model)
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: a browser runs .onnx files: crispseg export --run DIR --out model.onnx")
    facts = read_exported(path).facts
    onnx = needs("onnx")
    runtime = runtime_files(ort)
    page = {file.name: file.read_bytes() for file in sorted(PAGE.iterdir())}
    networks = {"model.onnx": _shared(onnx.load(path), facts), "refiner.onnx": page.pop("refiner.onnx")}
    refiner = {entry.key: entry.value for entry in onnx.load_from_string(networks["refiner.onnx"]).metadata_props}
    about = {
        **_about(facts),
        "name": name or path.stem,
        "version": __version__,
        "runtime": {"folder": f"ort-{VERSION}/"},
        "model": _of("model.onnx", networks),
        "refiner": {**_of("refiner.onnx", networks), **json.loads(refiner["crispseg.refiner"])},
    }
    return {
        **{f"ort-{VERSION}/{file}": data for file, data in runtime.items()},
        **networks,
        "model.json": (json.dumps(about, indent=1) + "\n").encode(),
        **dict(sorted(page.items(), key=lambda item: item[0] == "index.html")),
    }


def write_site(site: Site, out: str | os.PathLike[str]) -> Path:
    """Write the files of a page into a folder, new or empty, ``index.html`` last, and return that one.

    UsageError if ``out`` is there and no empty folder.
    """
    check_out(out)
    for name, data in site.items():
        write_bytes(Path(out, name), data)
    return Path(out) / "index.html"


def check_out(out: str | os.PathLike[str]) -> None:
    """Raise UsageError if ``out`` is there and no empty folder."""
    folder = Path(out)
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder to write to, found a file")
    if folder.is_dir() and (first := next(iter(sorted(folder.iterdir())), None)) is not None:
        raise UsageError(f"{folder}: expected an empty folder, or none, found {first.name} in it")


def _about(facts: Facts) -> dict[str, Any]:
    trained = configs.from_dict(facts.config).data.size
    return {
        "classes": facts.classes.names,
        "palette": facts.classes.palette,
        "png_palette": full_palette(facts.classes),
        "gives": facts.gives,
        "size": facts.size,
        "trained": trained,
        "precision": facts.precision,
    }


def _of(name: str, files: Site) -> dict[str, Any]:
    return {"file": name, "bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}


def _shared(model: Any, facts: Facts) -> bytes:
    """The model again, without the paths of the machine that it was trained on: a page is for others."""
    tree = json.loads(json.dumps(facts.config))
    tree["data"]["root"] = Path(tree["data"]["root"]).name or "data"
    for section, key in (("model", "factory"), ("data", "transforms")):
        if tree[section].get(key):
            tree[section][key] = Path(tree[section][key]).name
    parts = {".onnx": onnx_file.encode(model, dataclasses.replace(facts, config=tree).encode())}
    return seal(parts)[".onnx"]
