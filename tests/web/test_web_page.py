"""``crispseg web``: what is in the folder, what the server gives, and what is told in one line. No browser here."""

import base64
import gzip
import hashlib
import io
import json
import re
import socket
import sys
import tarfile
import threading
import urllib.error
import urllib.request
from http.client import HTTPConnection

import numpy as np
import pytest
import torch
from tiny_onnx import NAMES, write_tiny

from crispseg.cli import main
from crispseg.exported import read_exported
from crispseg.web import make_server, make_site, runtime, write_site
from crispseg.web.refiner import FILE, WEIGHTS
from crispseg.web.server import address
from crispseg.web.site import PAGE

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny") / "street.onnx")


@pytest.fixture(scope="module")
def ort(tmp_path_factory):
    """A folder that has the names of onnxruntime-web's files."""
    folder = tmp_path_factory.mktemp("ort")
    for name in runtime.FILES:
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture(scope="module")
def site(model, ort):
    return make_site(model, ort=ort)


@pytest.fixture
def served(site):
    server = make_server(site, port=0)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def packed(names=runtime.FILES):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in names:
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    return buffer.getvalue()


def test_the_folder_holds_all_that_the_page_loads(model, ort, tmp_path, capsys):
    out = tmp_path / "site"
    assert main(["web", "--run", str(model), "--static", str(out), "--ort", str(ort)]) == 0
    assert str(out / "index.html") in capsys.readouterr().out
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    text = "".join((out / name).read_text() for name in files if name.endswith((".js", ".html")))
    named = set(
        re.findall(r"""(?:src|href)="([\w./-]+)"|from "\./([\w.]+)"|new URL\("([\w.]+)"|fetch\("([\w.]+)\"""", text)
    )
    asked = {name for group in named for name in group if name}
    assert asked >= {"page.js", "style.css", "worker.js", "stage.js", "refine.js", "settle.js", "model.json"}
    assert asked <= files
    about = json.loads((out / "model.json").read_text())
    for part in (about["model"], about["refiner"]):
        data = (out / part["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (part["bytes"], part["sha256"])
    assert {f"{about['runtime']['folder']}{name}" for name in runtime.FILES} <= files
    assert files == {path.name for path in PAGE.iterdir()} | {"model.json", "model.onnx"} | {
        f"ort-{runtime.VERSION}/{name}" for name in runtime.FILES
    }


@pytest.mark.parametrize(
    "facts", [{}, {"trained": (180, 240)}, {"size": (48, 64)}, {"size": (48, 64), "gives": "mask"}], ids=str
)
def test_the_page_knows_what_the_metadata_says(facts, ort, tmp_path):
    about = json.loads(make_site(write_tiny(tmp_path / "a.onnx", **facts), ort=ort)["model.json"])
    assert about["classes"] == list(NAMES) and about["palette"] == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert about["png_palette"][:3] == about["palette"] and about["png_palette"][255] == [255, 255, 255]
    for key in ("size", "trained"):
        assert about[key] == (list(facts[key]) if key in facts else None)
    assert about["gives"] == facts.get("gives", "logits") and about["name"] == "a"


def test_the_network_is_the_same_and_says_nothing_of_the_machine(site, model, tmp_path):
    (tmp_path / "model.onnx").write_bytes(site["model.onnx"])
    ours, theirs = read_exported(tmp_path / "model.onnx"), read_exported(model)
    images = torch.rand(2, 3, 5, 7)
    assert torch.equal(ours(images), theirs(images)) and ours.facts.classes == theirs.facts.classes
    assert b"somebody" in model.read_bytes() and b"somebody" not in site["model.onnx"]
    assert ours.facts.config["data"]["root"] == "street" and ours.facts.config["model"]["factory"] == "net.py:make"


def test_nothing_on_the_page_comes_from_elsewhere(site):
    for name, data in site.items():
        if "/" in name or not name.endswith((".js", ".css", ".html")):
            continue
        found = re.findall(
            r"(?:https?:)?//[\w.-]+\.\w+|https?://[^\s<\"'`]+", re.sub(r"^\s*//.*$", "", data.decode(), flags=re.M)
        )
        assert [url for url in found if not url.startswith("http://localhost:8000")] == [], name
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', site["index.html"].decode())
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    allowed = {"'self'", "'none'", "'wasm-unsafe-eval'", "blob:", "data:"}
    assert {word for words in rules.values() for word in words.split()} <= allowed
    assert rules["connect-src"] == rules["worker-src"] == rules["style-src"] == "'self'"


def test_a_folder_that_is_not_empty_is_left_alone(model, ort, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    for out, said in ((tmp_path, "found mine.txt in it"), (tmp_path / "mine.txt", "found a file")):
        assert main(["web", "--run", str(model), "--static", str(out), "--ort", str(ort)]) == 2
        error = capsys.readouterr().err
        assert said in error and str(out) in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_index_html_is_the_last_file_that_is_written(site, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("crispseg.web.site.write_bytes", lambda path, data: written.append(path.name))
    write_site(site, tmp_path / "out")
    assert written[-1] == "index.html" and len(written) == len(site)


def test_what_is_no_file_of_ours_is_told(model, ort, tmp_path, capsys):
    foreign = onnx.load(model)
    del foreign.metadata_props[:]
    (tmp_path / "foreign.onnx").write_bytes(foreign.SerializeToString())
    (tmp_path / "text.onnx").write_text("text")
    (tmp_path / "model.xml").write_text("text")
    for name, code, said in (
        ("foreign.onnx", 1, "without classes and config in its metadata"),
        ("text.onnx", 1, "cannot read it"),
        ("model.xml", 2, "a browser runs .onnx files"),
        ("none.onnx", 2, "no such file"),
        (".", 2, "is not a run folder"),
    ):
        words = ["web", "--run", str(tmp_path / name), "--static", str(tmp_path / "out"), "--ort", str(ort)]
        assert main(words) == code, name
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and "bug" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_one_line(package, model, ort, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["web", "--run", str(model), "--static", str(tmp_path / "out"), "--ort", str(ort)]) == 2
    error = capsys.readouterr().err
    assert f'{package} is not installed: pip install "crispseg[export]"' in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--static", "out", "--port", "1"], "--port goes with a page that is served, without --static; a file"),
        (["--static", "out", "--host", "::1"], "--host goes with a page that is served"),
        (["--static", "out", "--check", "photos"], "--check goes with a run folder"),
        (["--model", "net.py:make"], "--model goes with a run folder"),
        (["--port", "70000"], "--port: expected a whole number from 0 to 65535"),
        (["--ort", "nowhere"], "nowhere: no such folder, or archive"),
    ],
)
def test_misuse_is_exit_code_2(model, more, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["web", "--run", str(model), *more]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_port_in_use_is_one_line(model, ort, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["web", "--run", str(model), "--ort", str(ort), "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 is in use; give another by --port" in error and error.count("\n") == 1
    assert main(["web", "--run", str(model), "--ort", str(ort), "--host", "no.such.host.invalid", "--port", "0"]) == 2
    assert "cannot listen at no.such.host.invalid" in capsys.readouterr().err


def test_the_command_serves_until_ctrl_c(model, ort, monkeypatch, capsys):
    seen = []

    def serve(server):
        seen.append(server.server_address)
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", serve)
    assert main(["web", "--run", str(model), "--ort", str(ort), "--port", "0"]) == 0
    ((host, port),) = seen
    assert host == "127.0.0.1" and f"http://127.0.0.1:{port}/ shows the page" in capsys.readouterr().out


def test_the_server_gives_the_page_and_nothing_else(served, site):
    for name, kind in (("", "text/html"), ("page.js", "text/javascript"), ("model.onnx?1", "application/octet-stream")):
        with urllib.request.urlopen(address(served) + name) as answer:
            assert answer.headers["Content-Type"].startswith(kind)
            assert answer.read() == site[name.partition("?")[0] or "index.html"]
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            tag = answer.headers["ETag"]
    request = urllib.request.Request(address(served) + "model.onnx", headers={"If-None-Match": tag})
    with pytest.raises(urllib.error.HTTPError, match="304"):
        urllib.request.urlopen(request)
    for name in ("/../site.py", "/%2e%2e/site.py", "//etc/passwd", "/ort-1/"):
        assert raw(served, "GET", name) == 404
    assert raw(served, "POST", "/") == 501 and raw(served, "PUT", "/a") == 501


def test_a_server_of_this_machine_answers_to_no_other_name(served, site):
    port = served.server_address[1]
    assert raw(served, "GET", "/", host=f"localhost:{port}") == 200
    assert raw(served, "GET", "/", host=f"evil.example:{port}") == 421
    everywhere = make_server(site, "0.0.0.0", 0)
    try:
        assert everywhere.RequestHandlerClass.allowed is None and "127.0.0.1" in address(everywhere)
    finally:
        everywhere.server_close()


def raw(server, method, path, host=None):
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """npm's registry, with an archive that is pinned; returns the list of what was fetched."""
    data, fetched = packed(), []

    def answer(url, timeout):
        fetched.append(url)
        return io.BytesIO(data)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("urllib.request.urlopen", answer)
    monkeypatch.setattr(runtime, "INTEGRITY", base64.b64encode(hashlib.sha512(data).digest()).decode())
    monkeypatch.setattr(runtime, "FILES", {n: hashlib.sha256(n.encode()).hexdigest() for n in runtime.FILES})
    return fetched


def test_the_runtime_is_fetched_once_and_what_is_damaged_again(registry):
    files = runtime.runtime_files()
    assert files == {name: name.encode() for name in runtime.FILES} and registry == [runtime.URL]
    assert runtime.runtime_files() == files and len(registry) == 1
    (runtime.cache() / "ort.wasm.min.mjs").write_text("damaged")
    assert runtime.runtime_files() == files and len(registry) == 2


def test_an_archive_that_is_not_the_pinned_one_is_not_used(registry, monkeypatch, model, tmp_path, capsys):
    monkeypatch.setattr(runtime, "INTEGRITY", "other")
    assert main(["web", "--run", str(model), "--static", str(tmp_path / "out")]) == 1
    assert "its checksum is not the one that is pinned" in capsys.readouterr().err
    assert not runtime.cache().exists() and not (tmp_path / "out").exists()


def test_an_offline_machine_is_told_what_to_do(monkeypatch, model, tmp_path, capsys):
    def offline(url, timeout):
        raise urllib.error.URLError(socket.gaierror(-3, "Temporary failure in name resolution"))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    assert main(["web", "--run", str(model), "--static", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert runtime.URL in error and "--ort FILE.tgz" in error and "name resolution" in error and error.count("\n") == 1


def test_the_runtime_comes_from_a_folder_its_dist_or_an_archive(ort, tmp_path):
    expected = {name: name.encode() for name in runtime.FILES}
    (tmp_path / "a.tgz").write_bytes(packed())
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "dist").symlink_to(ort)
    for given in (ort, tmp_path / "module", tmp_path / "a.tgz"):
        assert runtime.runtime_files(given) == expected


def test_a_runtime_that_lacks_a_file_is_told(tmp_path, model, capsys):
    first, *rest = runtime.FILES
    (tmp_path / "short.tgz").write_bytes(packed(rest))
    (tmp_path / "bad.tgz").write_bytes(gzip.compress(b"no archive"))
    (tmp_path / "empty").mkdir()
    for name, said in (("short.tgz", first), ("bad.tgz", "expected an archive of npm"), ("empty", f"found no {first}")):
        words = ["web", "--run", str(model), "--static", str(tmp_path / "out"), "--ort", str(tmp_path / name)]
        assert main(words) == 1
        error = capsys.readouterr().err
        assert said in error and name in error and error.count("\n") == 1


def test_the_refiner_of_the_page_is_the_shipped_one():
    """Its weights are those of the package, and its answers PyTorch's, for any number of classes and any size."""
    from crispseg.refinement.learned import SHIPPED, read_weights
    from crispseg.web.refiner import OUTPUTS, _Look

    found = {entry.key: entry.value for entry in onnx.load(FILE).metadata_props}
    weights = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert found[WEIGHTS] == weights, "make it again: python -m crispseg.web.refiner"
    session, look = onnxruntime.InferenceSession(FILE), _Look(read_weights(SHIPPED)).eval()
    for k, height, width in ((2, 48, 32), (7, 16, 64)):
        generator = torch.Generator().manual_seed(k)
        image = torch.rand(1, 3, height, width, generator=generator)
        p = (4 * torch.randn(1, k, height // 8, width // 8, generator=generator)).repeat_interleave(8, 2)
        p = p.repeat_interleave(8, 3).softmax(1)
        answer = session.run(list(OUTPUTS), {"image": image.numpy(), "p": p.numpy()})
        with torch.no_grad():
            expected = look(image, p)
        for ours, theirs in zip(answer, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4, rtol=1e-4)
