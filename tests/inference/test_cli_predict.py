"""``crispseg predict`` from the command line, with a real run folder: exit codes, what is printed, what is written."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from crispseg import config as configs
from crispseg.cli import main
from crispseg.config import Config, DataConfig, ModelConfig
from crispseg.data import ClassSet, default_palette, read_label, write_classes
from crispseg.inference import load, predict_logits
from crispseg.refinement import refine
from crispseg.runs import load_run, make_model

EMPTY = "expected PNG, JPEG, WEBP, TIFF or BMP, found an empty file"
CLASSES = ClassSet(("sky", "road"), default_palette(2))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny"
    config = Config(
        data=DataConfig(root="nowhere"), model=ModelConfig(decoder="fcn", decoder_channels=8, pretrained=False)
    )
    torch.manual_seed(0)
    configs.write(config, path / "config.yaml")
    write_classes(path / "classes.json", CLASSES)
    save_file(make_model(config, len(CLASSES)).state_dict(), path / "model.safetensors")
    return path


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, size in enumerate([(40, 50), (33, 64)]):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def test_masks_are_those_of_the_run(run, photos, tmp_path, capsys):
    assert main(["predict", "--run", str(run), str(photos), "--out", str(tmp_path / "out"), "--overlay"]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == f"{tmp_path / 'out'}: 2 masks written"
    assert captured.err == ""  # no progress bar where nobody looks
    with Image.open(photos / "1.png") as picture:
        image = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    expected = predict_logits(load_run(run).model, image).argmax(0)
    assert (read_label(tmp_path / "out" / "1.png", CLASSES) == expected).all()
    assert torch.equal(load(run, device="cpu")(photos / "1.png"), expected.byte())
    assert (tmp_path / "out" / "overlays" / "1.jpg").is_file()


def test_a_bad_image_gives_exit_code_1_and_all_others_a_mask(run, photos, tmp_path, capsys):
    (photos / "0.png").write_bytes(b"")
    words = ["predict", "--run", str(run), str(photos / "*.png"), "--out", str(tmp_path / "out")]
    assert main([*words, "--window", "32", "32", "--flip", "--scales", "0.5", "1.0"]) == 1
    captured = capsys.readouterr()
    assert "1 mask written" in captured.out
    assert captured.err == f"crispseg: left out: {photos / '0.png'}: {EMPTY}\n"
    assert (tmp_path / "out" / "1.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "nowhere"], "nowhere is not a run folder"),
        (["--stride", "8", "8"], "--stride 8 8 needs a --window"),
        (["--window", "0", "8"], "--window: expected a whole number of at least 1, found '0'"),
        (["--scales", "1.0", "-1"], "--scales: expected a positive number, found '-1'"),
        (["--device", "abacus"], "device abacus is not available here"),
        (["--refine", "crf:iteration=2"], "--refine: crf: unknown key 'iteration'; did you mean 'iterations'?"),
    ],
)
def test_misuse_is_exit_code_2_and_writes_nothing(run, photos, tmp_path, capsys, words, message):
    run_words = [] if words[0] == "--run" else ["--run", str(run)]
    assert main(["predict", *run_words, *words, "--out", str(tmp_path / "out"), "--overlay", str(photos)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def noise(model, image, **options):
    """Logits of no network: each pixel for itself, so that refining them changes labels."""
    return torch.randn(2, *image.shape[-2:], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("word", ["guided", "diffusion:steps=3,scale=0.5"])
def test_masks_are_refined_with_their_own_picture(run, photos, tmp_path, monkeypatch, word):
    monkeypatch.setattr("crispseg.inference.labels.predict_logits", noise)
    assert main(["predict", "--run", str(run), str(photos), "--out", str(tmp_path / "out"), "--refine", word]) == 0
    for name in ("0.png", "1.png"):
        with Image.open(photos / name) as picture:
            image = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
        found, logits = read_label(tmp_path / "out" / name, CLASSES), noise(None, image)
        assert (found == refine(logits, image, word).argmax(0)).all() and (found != logits.argmax(0)).any()


def test_a_picture_whose_scores_cannot_be_refined_is_named(run, photos, tmp_path, capsys, monkeypatch):
    def broken(model, image, **options):
        return torch.full((2, *image.shape[-2:]), torch.nan)

    monkeypatch.setattr("crispseg.inference.labels.predict_logits", broken)
    assert main(["predict", "--run", str(run), str(photos), "--out", str(tmp_path / "out"), "--refine", "guided"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        f"crispseg: left out: {photos / '0.png'}: cannot be refined: scores hold values that are not finite"
    )


def test_large_pictures_are_seen_by_windows_at_the_overlap_that_is_measured(run, photos, tmp_path, capsys):
    words = ["predict", "--run", str(run), str(photos), "--out", str(tmp_path / "out"), "--large"]
    assert main([*words, "--window", "64", "64", "--batch", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'out'}: 2 masks written\n"
    assert captured.err == ""
    with Image.open(photos / "1.png") as picture:
        image = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    expected = predict_logits(load_run(run).model, image).argmax(0)  # one window holds it
    assert (read_label(tmp_path / "out" / "1.png", CLASSES) == expected).all()
    assert main([*words, "--window", "32", "64", "--overlap", "0", "--flip", "--scales", "0.5", "1"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--overlap", "8"], "--overlap goes with --large; without it pictures are seen whole"),
        (
            ["--large", "--stride", "8", "8", "--window", "64", "64"],
            "--stride does not go with --large; say the overlap",
        ),
        (["--large", "--refine", "guided"], "--refine does not go with --large"),
        (["--large", "--overlay"], "--overlay does not go with --large"),
        (["--large", "--range", "9", "2"], "--range 9 2: expected LOW below HIGH"),
        (["--large", "--overlap", "64", "--window", "64", "64"], "--overlap 64 must be below the window, 64×64 px"),
        (["--workers", "2"], "--workers goes with --ray; without it pictures are seen whole, by one process"),
        (["--cores", "2"], "--cores goes with --ray"),
        (["--steady"], "--steady is about films; these are pictures"),
    ],
)
def test_what_large_pictures_cannot_have_is_refused(run, photos, tmp_path, capsys, words, message):
    assert main(["predict", "--run", str(run), *words, "--out", str(tmp_path / "out"), str(photos)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_object_store_needs_ray(run, photos, tmp_path, capsys):
    for words in (["s3://b/photos", "--out", str(tmp_path / "out")], [str(photos), "--out", "s3://b/photos"]):
        assert main(["predict", "--run", str(run), *words]) == 2
        assert "s3://b/photos: object stores go with --ray" in capsys.readouterr().err


def test_a_film_is_predicted_by_its_suffix(run, tmp_path, capsys, monkeypatch):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 80 * i, np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    words = ["--run", str(run), "--out", str(tmp_path / "m.mkv")]
    assert main(["predict", str(tmp_path / "a.mp4"), *words]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (f"{tmp_path / 'm.mkv'}: 3 frames written\n", "")
    assert main(["predict", str(tmp_path / "a.mp4"), *words]) == 2
    assert "m.mkv is there already" in capsys.readouterr().err
    for more, found in ((["--large"], "--large"), (["--ray"], "--ray"), ([str(tmp_path / "b.png")], "2 inputs")):
        assert main(["predict", str(tmp_path / "a.mp4"), *more, *words]) == 2
        assert f"one film is predicted at a time; found {found}" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None if name == "cv2" else find_spec(name))
        assert main(["predict", str(tmp_path / "a.mp4"), *words, "--overwrite", "--steady"]) == 2
    assert 'pip install "crispseg[steady]"' in capsys.readouterr().err
    pytest.importorskip("cv2")
    assert main(["predict", str(tmp_path / "a.mp4"), *words, "--overwrite", "--steady"]) == 0
