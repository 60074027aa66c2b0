"""A page on which a browser runs your network. Served on this machine:
  crispseg web --run model.onnx
Or as a folder for any web server, which needs nothing of ours:
  crispseg web --run model.onnx --static site

Drop a picture and see mask, borders and, after one click, refined borders; or draw a coarse mask and watch it snap. The
browser computes: no picture leaves it. A run folder is exported first, judged as crispseg export judges.
onnxruntime-web is fetched once, from npm's registry, and kept; or give it by --ort.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from crispseg.cli import say
from crispseg.cli._parser import Flag, path, refuse_idle, whole
from crispseg.errors import printable

if TYPE_CHECKING:
    from crispseg.web import Site

SERVED, FOLDER = frozenset({"a page that is served, without --static"}), frozenset({"a run folder"})


def flags() -> list[Flag]:
    """What runs on the page, and where the page goes."""
    first: dict[str, Any] = {"group": "used first"}
    exported: dict[str, Any] = {"group": "of a run folder", "of": FOLDER}
    served: dict[str, Any] = {"group": "served", "of": SERVED}
    return [
        Flag(
            name="--run",
            kind=path,
            required=True,
            metavar="FILE.onnx|DIR",
            help="file of crispseg export, or run folder of a training",
            **first,
        ),
        Flag(name="--static", kind=path, metavar="OUT", help="write the page into this new folder instead", **first),
        Flag(
            name="--ort",
            kind=path,
            metavar="PATH",
            help="onnxruntime-web: its folder, or npm's archive (.tgz)",
            shown="fetched once and kept",
            **first,
        ),
        Flag(name="--host", metavar="ADDRESS", default="127.0.0.1", help="where to listen; 0.0.0.0: all", **served),
        Flag(name="--port", kind=whole(0, 65535), metavar="N", default=7860, help="0: any that is free", **served),
        Flag(
            name="--model", metavar="PATH.py:FACTORY", help="run this code, if the run's network needs it", **exported
        ),
        Flag(
            name="--check",
            kind=path,
            metavar="DIR",
            help="folder of pictures that the export is judged on",
            shown="the run's validation split",
            **exported,
        ),
    ]


def run(arguments: Any) -> int:
    """Export if need be, then write or serve."""
    folder = arguments.run.is_dir()
    present = {*(FOLDER if folder else ()), *(SERVED if arguments.static is None else ())}
    found = ["a run folder" if folder else "a file", "is served" if arguments.static is None else "is written here"]
    refuse_idle(arguments, flags(), present, " ".join(found))
    from crispseg.web import make_server, write_site
    from crispseg.web.server import address
    from crispseg.web.site import check_out

    if arguments.static is not None:
        check_out(arguments.static)
        page = write_site(_site(arguments), arguments.static)
        size = sum(file.stat().st_size for file in arguments.static.rglob("*") if file.is_file())
        say(f"{page}: {size / 1e6:.0f} MB with all it needs; in that folder: python -m http.server")
        return 0
    make_server({}, arguments.host, arguments.port).server_close()  # a port that is in use is told at once
    server = make_server(_site(arguments), arguments.host, arguments.port)
    say(f"{address(server)} shows the page; Ctrl-C ends it")
    sys.stdout.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("")
    finally:
        server.server_close()
    return 0


def _site(arguments: Any) -> "Site":
    from crispseg.web import make_site

    if not arguments.run.is_dir():
        return make_site(arguments.run, ort=arguments.ort)
    from crispseg.cli.export import views
    from crispseg.exporting import export
    from crispseg.runs import load_run
    from crispseg.web.runtime import runtime_files

    run = load_run(arguments.run, factory=arguments.model)
    seen = views(run, check=arguments.check)
    runtime_files(arguments.ort)  # what is missing is told before the minutes that an export may take
    with TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        print(printable(f"crispseg: exporting {arguments.run}, judged on {len(seen)} pictures"), file=sys.stderr)
        made = export(run, file, seen)
        for reason in made.without:
            say(f"{arguments.run}: {reason}")
        return make_site(file, name=arguments.run.resolve().name, ort=arguments.ort)
