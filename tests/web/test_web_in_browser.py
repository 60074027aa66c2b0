"""The page in a real browser: its masks are those of Python, and it asks nobody but its own folder.

Not here: what is in the folder (``test_web_page``).
"""

import io
import struct
import sys
import threading
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from devtools import chromium, needs_chromium
from PIL import Image

import crispseg
from crispseg.cli import main
from crispseg.data import read_image
from crispseg.data.scenes import scene
from crispseg.errors import CrispsegError
from crispseg.inference.labels import label_map
from crispseg.refinement import read_refiner
from crispseg.runs import load_run
from crispseg.web import make_server, make_site, write_site
from crispseg.web.runtime import runtime_files
from crispseg.web.server import address

sys.path.insert(0, str(Path(__file__).parents[1] / "exporting"))
from exported_runs import write_run

pytestmark = [pytest.mark.slow, needs_chromium]
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
CHANGED = 1e-4
"""Share of the pixels whose two largest scores are so near that the rounding of another processor decides."""


@pytest.fixture(scope="module", autouse=True)
def _runtime():
    try:
        runtime_files()
    except CrispsegError as error:
        pytest.skip(f"needs onnxruntime-web: {error}")


@pytest.fixture(scope="module")
def model(scenes, tmp_path_factory):
    """A small network with a neck, whose every class has borders somewhere."""
    folder = tmp_path_factory.mktemp("model")
    run = write_run(folder / "run", scenes)
    words = ["export", "--run", str(run), "--model", f"{run}/net.py:make", "--out", str(folder / "model.onnx")]
    assert main(words) == 0
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def url(model):
    """The page, served as ``crispseg web`` serves it."""
    server = make_server(make_site(model), port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield address(server)
    server.shutdown()
    server.server_close()


@pytest.fixture
def tab(tmp_path):
    with chromium(tmp_path / "profile") as tab:
        yield tab


@pytest.fixture
def downloads(tmp_path):
    (tmp_path / "downloads").mkdir()
    return tmp_path / "downloads"


def settled(tab, words):
    tab.wait(f"document.getElementById('status').textContent.includes('{words}')", seconds=240)


def ready(tab, url, **size):
    tab.open(url, **size)
    settled(tab, "Ready.")


def mask(tab, downloads):
    file = tab.download("#download", downloads)
    with Image.open(file) as picture:
        return torch.from_numpy(np.array(picture)), picture.getpalette("RGB")


def seen(tab, file, downloads, said=" s."):
    tab.choose(file)
    settled(tab, said)
    return mask(tab, downloads)[0]


def as_in_python(model, file, **options):
    run = load_run(model)
    return label_map(run.model, read_image(file), size=run.config.data.size, **options)


def without_meaning(path, picture):
    """A PNG that says its numbers are to be shown in another way (gAMA: they are linear), which nobody may apply."""
    picture.save(path)
    data = path.read_bytes()
    body = b"gAMA" + struct.pack(">I", 100000)
    chunk = struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(data[:33] + chunk + data[33:])


def test_masks_are_those_of_python_and_nobody_else_is_asked(tab, url, model, tmp_path, downloads):
    with Image.open(PHOTO) as photo:
        small = photo.convert("RGB").resize((301, 353))
    turned = Image.Exif()
    turned[0x0112] = 6
    small.save(tmp_path / "turned.jpg", exif=turned, quality=92)
    without_meaning(tmp_path / "gamma.png", small)
    Image.fromarray(scene((0, 0, 0), 180, 240)[0]).save(tmp_path / "scene.png")
    ready(tab, url)
    for file in (PHOTO, tmp_path / "turned.jpg", tmp_path / "gamma.png", tmp_path / "scene.png"):
        found, expected = seen(tab, file, downloads), as_in_python(model, file)
        assert found.shape == expected.shape, file
        changed = float((found != expected).float().mean())
        print(f"{file.name}: {found.shape[1]}×{found.shape[0]}, {100 * changed:.4f} % of the pixels differ")
        assert changed <= CHANGED, file
        assert len(expected.unique()) > 2
    assert tab.asked and {asked for asked in tab.asked if not asked.startswith((url, "blob:", "data:"))} == set()
    assert tab.said == []


def test_the_palette_of_the_mask_is_that_of_predict(tab, url, model, tmp_path, downloads):
    ready(tab, url)
    Image.fromarray(scene((0, 0, 1), 60, 80)[0]).save(tmp_path / "scene.png")
    tab.choose(tmp_path / "scene.png")
    settled(tab, " s.")
    _, palette = mask(tab, downloads)
    assert main(["predict", "--run", str(model), str(tmp_path / "scene.png"), "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "scene.png") as theirs:
        assert palette == theirs.getpalette("RGB")


def test_refined_masks_are_those_of_python(tab, url, model, tmp_path, downloads):
    Image.fromarray(scene((0, 0, 2), 187, 250)[0]).save(tmp_path / "scene.png")
    ready(tab, url)
    before = seen(tab, tmp_path / "scene.png", downloads)
    tab.evaluate("document.getElementById('refine').click()")
    settled(tab, "Refined in")
    found = mask(tab, downloads)[0]
    expected = as_in_python(model, tmp_path / "scene.png", refiner=read_refiner("crispseg"))
    changed = float((found != expected).float().mean())
    print(f"refined: {100 * changed:.4f} % of the pixels differ; refining changed {100 * float((before != expected).float().mean()):.1f} %")
    assert changed <= 10 * CHANGED
    assert float((before != expected).float().mean()) > 0.01
    assert tab.evaluate("!document.getElementById('compare').hidden")


def test_a_drawn_mask_snaps_as_crispseg_refine_does_it(tab, url, tmp_path, downloads):
    with Image.open(PHOTO) as photo:
        photo.convert("RGB").resize((256, 300)).save(tmp_path / "photo.png")
    ready(tab, url)
    seen(tab, tmp_path / "photo.png", downloads)
    tab.evaluate("document.getElementById('snap').click()")
    tab.evaluate("document.getElementById('draw').click()")
    choose = "(c) => {{ const s = document.getElementById('class'); s.value = c; s.dispatchEvent(new Event('change')); }}"
    tab.evaluate(f"({choose.replace('{{', '{').replace('}}', '}')})(0)")
    tab.evaluate("document.getElementById('fill').click()")
    tab.evaluate(f"({choose.replace('{{', '{').replace('}}', '}')})(1)")
    tab.drag(*[(x, y) for y in (0.3, 0.45, 0.6, 0.8) for x in (0.35, 0.5, 0.65)])
    drawn = mask(tab, downloads)[0]
    assert set(drawn.unique().tolist()) == {0, 1} and 0.05 < float(drawn.float().mean()) < 0.8
    tab.evaluate("document.getElementById('refine').click()")
    settled(tab, "Refined in")
    found, expected = mask(tab, downloads)[0], crispseg.refine(str(tmp_path / "photo.png"), drawn.numpy())
    changed = float((found != expected).float().mean())
    print(f"drawn: {100 * changed:.4f} % of the pixels differ; {100 * float((drawn != expected).float().mean()):.1f} % moved")
    assert changed <= 10 * CHANGED and float((drawn != expected).float().mean()) > 0.01


def test_a_mask_is_painted_by_keyboard(tab, url, tmp_path, downloads):
    Image.fromarray(scene((0, 0, 3), 90, 120)[0]).save(tmp_path / "scene.png")
    ready(tab, url)
    before = seen(tab, tmp_path / "scene.png", downloads)
    tab.evaluate("document.getElementById('snap').click(); document.getElementById('draw').click()")
    tab.evaluate("document.getElementById('fill').click(); document.getElementById('class').selectedIndex = 2")
    tab.evaluate("document.getElementById('class').dispatchEvent(new Event('change')); document.getElementById('view').focus()")
    tab.press("ArrowRight", "ArrowRight", 39)
    tab.press(" ", "Space", 32)
    painted = mask(tab, downloads)[0]
    assert set(painted.unique().tolist()) == {0, 2} and painted[45, 61] == 2
    tab.evaluate("document.getElementById('undo').click(); document.getElementById('undo').click()")
    assert torch.equal(mask(tab, downloads)[0], before)


def test_a_run_that_resizes_sees_pictures_as_predict_shows_them(tab, scenes, tmp_path, downloads):
    """And a large picture is worked on at fewer pixels, brought there as crispseg brings pictures there."""
    run = write_run(tmp_path / "run", scenes, size=(96, 128))
    model = tmp_path / "resized.onnx"
    assert main(["export", "--run", str(run), "--model", f"{run}/net.py:make", "--out", str(model)]) == 0
    server = make_server(make_site(model), port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        ready(tab, address(server))
        found, expected = seen(tab, PHOTO, downloads), as_in_python(model, PHOTO)
        assert float((found != expected).float().mean()) <= CHANGED
        tab.evaluate("document.getElementById('most').value = '0.5'")
        with Image.open(PHOTO) as photo:
            photo.resize((1100, 900)).save(tmp_path / "large.png")
        found = seen(tab, tmp_path / "large.png", downloads, "Reduced from 1100×900")
        height, width = found.shape
        assert abs(height * width / 5e5 - 1) < 0.01
        from crispseg.data import resize_image

        small = resize_image(read_image(tmp_path / "large.png"), (height, width))
        expected = label_map(load_run(model).model, small, size=(96, 128))
        assert float((found != expected).float().mean()) <= 10 * CHANGED, "uint8 rounds a half to either side"
    finally:
        server.shutdown()
        server.server_close()


def test_the_folder_works_from_python_s_own_server_on_a_phone(tab, model, tmp_path, downloads):
    write_site(make_site(model), tmp_path / "site")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    handler.log_message = None
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Quiet", (SimpleHTTPRequestHandler,), {
        "log_message": lambda *_: None,
        "__init__": lambda self, *words: SimpleHTTPRequestHandler.__init__(self, *words, directory=str(tmp_path / "site")),
    }))  # fmt: skip
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Image.fromarray(scene((0, 0, 4), 180, 240)[0]).save(tmp_path / "scene.png")
    try:
        ready(tab, f"http://127.0.0.1:{server.server_address[1]}/", width=390, height=844)
        found = seen(tab, tmp_path / "scene.png", downloads)
        assert float((found != as_in_python(model, tmp_path / "scene.png")).float().mean()) <= CHANGED
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.evaluate("self.crossOriginIsolated") is False, "one thread"
        small = "[...document.querySelectorAll('button, .button, select, summary')].filter(b => b.offsetParent && b.offsetHeight < 36)"
        assert tab.evaluate(f"{small}.map(b => b.id)") == []
    finally:
        server.shutdown()
        server.server_close()


def test_opened_as_a_file_the_page_says_what_it_needs(tab, model, tmp_path):
    write_site(make_site(model), tmp_path / "site")
    tab.open((tmp_path / "site" / "index.html").as_uri())
    shown = tab.wait("document.getElementById('needs-server').offsetHeight > 0")
    assert shown and "python -m http.server" in tab.evaluate("document.getElementById('needs-server').innerText")
    assert tab.evaluate("document.getElementById('drop').offsetHeight") == 0


def test_what_is_no_picture_is_told_and_the_page_goes_on(tab, url, tmp_path, downloads):
    (tmp_path / "notes.png").write_text("no picture")
    ready(tab, url)
    tab.choose(tmp_path / "notes.png")
    settled(tab, "notes.png is no picture that this browser can read")
    Image.fromarray(scene((0, 0, 5), 40, 60)[0]).save(tmp_path / "scene.png")
    assert seen(tab, tmp_path / "scene.png", downloads).shape == (40, 60)


def test_a_lost_network_is_told(tab, model):
    site = {name: data for name, data in make_site(model).items() if name != "model.onnx"}
    server = make_server(site, port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        tab.open(address(server))
        settled(tab, "model.onnx could not be loaded: the server says 404")
    finally:
        server.shutdown()
        server.server_close()
