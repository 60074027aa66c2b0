"""The page in a real browser: its masks are those of Python, and it asks nobody but its own folder.

Not here: what is in the folder (``test_web_page``).
"""

import struct
import sys
import threading
import zlib
from contextlib import contextmanager
from functools import partialmethod
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
from crispseg.data import read_image, resize_image
from crispseg.data.scenes import scene
from crispseg.errors import CrispsegError
from crispseg.inference.labels import label_map
from crispseg.refinement import read_refiner
from crispseg.runs import load_run
from crispseg.web import make_server, make_site, write_site
from crispseg.web.runtime import runtime_files
from crispseg.web.server import address

sys.path.append(str(Path(__file__).parents[1] / "exporting"))
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


def exported(folder, scenes, **options):
    """A small network with a neck, whose every class has borders somewhere."""
    run = write_run(folder / "run", scenes, **options)
    words = ["export", "--run", str(run), "--model", f"{run}/net.py:make", "--out", str(folder / "model.onnx")]
    assert main(words) == 0
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def model(scenes, tmp_path_factory):
    return exported(tmp_path_factory.mktemp("model"), scenes)


@contextmanager
def serving(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield address(server)
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def url(model):
    """The page, served as ``crispseg web`` serves it."""
    with serving(make_server(make_site(model), port=0)) as url:
        yield url


@pytest.fixture
def tab(tmp_path):
    with chromium(tmp_path / "profile") as tab:
        yield tab


@pytest.fixture
def downloads(tmp_path):
    (tmp_path / "downloads").mkdir()
    return tmp_path / "downloads"


def says(tab, words):
    tab.wait(f"document.getElementById('status').textContent.includes({words!r})", seconds=240)


def ready(tab, url, **size):
    tab.open(url, **size)
    says(tab, "Ready.")


def click(tab, *names):
    for name in names:
        tab.evaluate(f"document.getElementById('{name}').click()")


def choose(tab, name, value):
    """Choose from a list of the page."""
    tab.evaluate(f"{{ const list = document.getElementById('{name}'); list.value = '{value}';"
                 " list.dispatchEvent(new Event('change')); }")  # fmt: skip


def mask(tab, downloads):
    """The mask that the page offers, and its palette."""
    with Image.open(tab.download("#download", downloads)) as picture:
        return torch.from_numpy(np.array(picture)), picture.getpalette("RGB")


def seen(tab, file, downloads, said=" s."):
    """The mask of a picture that is chosen on the page."""
    tab.choose(file)
    says(tab, said)
    return mask(tab, downloads)[0]


def painted(path, number, height, width):
    Image.fromarray(scene((0, 0, number), height, width)[0]).save(path)
    return path


def in_python(model, image, **options):
    run = load_run(model)
    return label_map(run.model, image, size=run.config.data.size, **options)


def differing(ours, theirs, what):
    assert ours.shape == theirs.shape, what
    share = float((ours != theirs).float().mean())
    print(f"{what}: {ours.shape[1]}×{ours.shape[0]}, {100 * share:.4f} % of the pixels differ")
    return share


def save_with_gamma(path, picture):
    """A PNG that asks for other colours than its numbers are (gAMA 1: linear light); crispseg does not apply that."""
    picture.save(path)
    data, body = path.read_bytes(), b"gAMA" + struct.pack(">I", 100000)
    path.write_bytes(data[:33] + struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:])


def test_masks_are_those_of_python_and_nobody_else_is_asked(tab, url, model, tmp_path, downloads):
    with Image.open(PHOTO) as photo:
        small = photo.convert("RGB").resize((301, 353))
    turned = Image.Exif()
    turned[0x0112] = 6
    small.save(tmp_path / "turned.jpg", exif=turned, quality=92)
    save_with_gamma(tmp_path / "gamma.png", small)
    ready(tab, url)
    scene_file = painted(tmp_path / "scene.png", 0, 180, 240)
    for file in (PHOTO, tmp_path / "turned.jpg", tmp_path / "gamma.png", scene_file):
        expected = in_python(model, read_image(file))
        assert differing(seen(tab, file, downloads), expected, file.name) <= CHANGED
        assert len(expected.unique()) > 2
    assert tab.asked and [asked for asked in tab.asked if not asked.startswith((url, "blob:", "data:"))] == []
    assert tab.said == []


def test_the_palette_of_the_mask_is_that_of_predict(tab, url, model, tmp_path, downloads):
    ready(tab, url)
    file = painted(tmp_path / "scene.png", 1, 60, 80)
    seen(tab, file, downloads)
    assert main(["predict", "--run", str(model), str(file), "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "scene.png") as theirs:
        assert mask(tab, downloads)[1] == theirs.getpalette("RGB")


def test_refined_masks_are_those_of_python(tab, url, model, tmp_path, downloads):
    file = painted(tmp_path / "scene.png", 2, 150, 1101)  # two tiles
    ready(tab, url)
    before = seen(tab, file, downloads)
    click(tab, "refine")
    says(tab, "Refined in")
    expected = in_python(model, read_image(file), refiner=read_refiner("crispseg"))
    assert differing(mask(tab, downloads)[0], expected, "refined") <= CHANGED
    assert differing(before, expected, "before") > 0.01
    assert tab.evaluate("!document.getElementById('compare').hidden")


def test_a_drawn_mask_snaps_as_crispseg_refine_does_it(tab, url, tmp_path, downloads):
    with Image.open(PHOTO) as photo:
        photo.convert("RGB").resize((256, 300)).save(tmp_path / "photo.png")
    ready(tab, url)
    seen(tab, tmp_path / "photo.png", downloads)
    click(tab, "snap", "draw")
    choose(tab, "class", 0)
    click(tab, "fill")
    choose(tab, "class", 1)
    tab.drag(*[(x, y) for y in (0.3, 0.45, 0.6, 0.8) for x in (0.35, 0.5, 0.65)])
    drawn = mask(tab, downloads)[0]
    assert set(drawn.unique().tolist()) == {0, 1} and 0.05 < float(drawn.float().mean()) < 0.8
    click(tab, "refine")
    says(tab, "Refined in")
    expected = crispseg.refine(str(tmp_path / "photo.png"), drawn.numpy())
    assert differing(mask(tab, downloads)[0], expected, "drawn, then refined") <= CHANGED
    assert differing(drawn, expected, "drawn") > 0.01


def test_a_stroke_snaps_by_itself(tab, url, tmp_path, downloads):
    ready(tab, url)
    seen(tab, painted(tmp_path / "scene.png", 6, 90, 120), downloads)
    click(tab, "draw", "fill")
    choose(tab, "class", 3)
    tab.drag((0.3, 0.5), (0.7, 0.5))
    says(tab, "Refined")


def test_a_mask_is_painted_by_keyboard(tab, url, tmp_path, downloads):
    ready(tab, url)
    before = seen(tab, painted(tmp_path / "scene.png", 3, 90, 120), downloads)
    click(tab, "snap", "draw", "fill")
    choose(tab, "class", 2)
    tab.evaluate("document.getElementById('view').focus()")
    tab.press("ArrowRight", "ArrowRight", 39)
    tab.press(" ", "Space", 32)
    by_hand = mask(tab, downloads)[0]
    assert set(by_hand.unique().tolist()) == {0, 2} and by_hand[45, 61] == 2
    click(tab, "undo", "undo")
    assert torch.equal(mask(tab, downloads)[0], before)


def test_a_run_that_resizes_sees_pictures_as_predict_shows_them(tab, scenes, tmp_path, downloads):
    """And a large picture is worked on at fewer pixels, brought there as crispseg brings pictures there."""
    model = exported(tmp_path, scenes, size=(96, 128))
    with serving(make_server(make_site(model), port=0)) as url:
        ready(tab, url)
        expected = in_python(model, read_image(PHOTO))
        assert differing(seen(tab, PHOTO, downloads), expected, "resized to 96×128") <= CHANGED
        choose(tab, "most", 0.5)
        with Image.open(PHOTO) as photo:
            photo.resize((1100, 900)).save(tmp_path / "large.png")
        found = seen(tab, tmp_path / "large.png", downloads, "Reduced from 1100×900")
        assert abs(found.numel() / 5e5 - 1) < 0.01
        small = resize_image(read_image(tmp_path / "large.png"), (found.shape[0], found.shape[1]))
        assert differing(found, in_python(model, small), "reduced from 1100×900") <= 10 * CHANGED, "uint8: of a half"


def test_the_folder_works_from_python_s_own_server_on_a_phone(tab, model, tmp_path, downloads):
    write_site(make_site(model), tmp_path / "site")

    class Handler(SimpleHTTPRequestHandler):
        __init__ = partialmethod(SimpleHTTPRequestHandler.__init__, directory=str(tmp_path / "site"))

        def log_message(self, *words):
            pass

    file = painted(tmp_path / "scene.png", 4, 180, 240)
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        ready(tab, url, width=390, height=844)
        assert differing(seen(tab, file, downloads), in_python(model, read_image(file)), "one thread") <= CHANGED
        click(tab, "draw")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.evaluate("self.crossOriginIsolated") is False
        buttons = "[...document.querySelectorAll('button, .button, select')].filter(b => b.offsetParent)"
        assert tab.evaluate(f"{buttons}.filter(b => b.offsetHeight < 36).map(b => b.id)") == [], "for a thumb"


def test_opened_as_a_file_the_page_says_what_it_needs(tab, model, tmp_path):
    write_site(make_site(model), tmp_path / "site")
    tab.open((tmp_path / "site" / "index.html").as_uri())
    assert "python -m http.server" in tab.wait("document.getElementById('needs-server').innerText")
    assert tab.evaluate("document.getElementById('drop').offsetHeight") == 0


def test_what_is_no_picture_is_told_and_the_page_goes_on(tab, url, tmp_path, downloads):
    (tmp_path / "notes.png").write_text("no picture")
    ready(tab, url)
    tab.choose(tmp_path / "notes.png")
    says(tab, "notes.png is no picture that this browser can read")
    assert seen(tab, painted(tmp_path / "scene.png", 5, 40, 60), downloads).shape == (40, 60)


def test_a_lost_network_is_told(tab, model):
    site = {name: data for name, data in make_site(model).items() if name != "model.onnx"}
    with serving(make_server(site, port=0)) as url:
        tab.open(url)
        says(tab, "model.onnx could not be loaded: the server says 404")
