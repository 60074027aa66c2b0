"""Maps of any size, measured by parts: the integers of the whole map; and seams of a run, against one whole pass."""

import json

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from crispseg import config as configs
from crispseg.cli import main
from crispseg.config import Config, DataConfig, ModelConfig
from crispseg.data import ClassSet, default_palette, write_classes
from crispseg.evaluation import Settings, large_suite, suite
from crispseg.inference import predict_large, predict_logits
from crispseg.inference.pictures import Picture
from crispseg.inference.truths import Map
from crispseg.metrics import seam_difference
from crispseg.runs import load_run, make_model

CLASSES = ("a", "b", "c")


def blobs(height, width, seed, void=0.0, piece=5):
    """A label map in pieces of ``piece`` px, with holes of void; small ones have specks too."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 3, (-(-height // piece), -(-width // piece)), dtype=np.uint8)
    label = coarse.repeat(piece, 0).repeat(piece, 1)[:height, :width].copy()
    label[draw.random((height, width)) < (0.02 if piece <= 5 else 0)] = 1
    label[draw.random((height, width)) < void] = 255
    return torch.from_numpy(label)


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    tiles=st.integers(1, 4),
    void=st.sampled_from([0.0, 0.05, 1.0]),
    width=st.one_of(st.none(), st.integers(1, 9)),
    border=st.booleans(),
    tolerances=st.sampled_from([(1,), (0, 2.5), (4, 1)]),
    radii=st.sampled_from([(1,), (6, 2)]),
    seed=st.integers(0, 99),
    pieces=st.sampled_from([(5, 5), (23, 19), (31, 31)]),
)
@example(size=(90, 90), tiles=6, void=0.0, width=9, border=False, tolerances=(1,), radii=(1,), seed=3, pieces=(31, 27))
@example(
    size=(90, 90), tiles=6, void=0.0, width=1, border=False, tolerances=(4, 1), radii=(1,), seed=3, pieces=(31, 27)
)
@example(
    size=(90, 90), tiles=6, void=0.0, width=1, border=False, tolerances=(1,), radii=(6, 2), seed=3, pieces=(31, 27)
)
@example(
    size=(90, 90), tiles=2, void=0.0, width=None, border=False, tolerances=(1,), radii=(1,), seed=3, pieces=(31, 27)
)
def test_parts_have_the_integers_of_the_whole(size, tiles, void, width, border, tolerances, radii, seed, pieces):
    pred, truth = blobs(*size, seed, void / 2, pieces[0]), blobs(*size, seed // 2, void, pieces[1])
    how = Settings(tolerances=tolerances, radii=radii, width=width, border=border)
    whole = suite([("x", pred, truth)], CLASSES, settings=how)
    parts = large_suite([("x", Map(pred), Map(truth))], CLASSES, settings=how, side=-(-max(size) // tiles))
    assert whole.counts.keys() == parts.counts.keys()
    for key, counts in whole.counts.items():
        assert torch.equal(counts, parts.counts[key]), key


def test_a_match_at_the_tolerance_itself_is_found_across_the_edge_of_a_part():
    """The truth's boundary pixel lies 4 px beyond the part, and is one by its neighbour 5 px beyond."""
    at, how = torch.arange(12), Settings(tolerances=(4,), radii=(1,), width=1)
    pred, truth = (at > 3).byte()[None], (at > 7).byte()[None]
    whole = suite([("x", pred, truth)], CLASSES, settings=how)
    parts = large_suite([("x", Map(pred), Map(truth))], CLASSES, settings=how, side=4)
    assert whole.headline()["boundary_f_4"] == 1.0
    assert torch.equal(whole.counts["boundary_f"], parts.counts["boundary_f"])


def test_maps_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="x: expected a prediction of 3×2 pixels as its truth, found 4×2"):
        large_suite([("x", Map(torch.zeros(2, 4).byte()), Map(torch.zeros(2, 3).byte()))], CLASSES)
    with pytest.raises(ValueError, match="x: target must hold classes 0 … 2"):
        large_suite([("x", Map(torch.zeros(1, 1).byte()), Map(torch.full((1, 1), 7).byte()))], CLASSES)
    with pytest.raises(ValueError, match="there is no picture to measure"):
        large_suite([], CLASSES)


def save(path, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(label.numpy()).save(path)


def tiff(path, label, **profile):
    rasterio = pytest.importorskip("rasterio")
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = label.shape
    place = {"transform": rasterio.Affine(1, 0, 9, 0, -1, 0)}
    with rasterio.open(
        path, "w", driver="GTiff", count=1, dtype=label.numpy().dtype, height=height, width=width, **place, **profile
    ) as file:
        file.write(label.numpy(), 1)


def test_masks_of_any_size_have_the_numbers_of_evaluate(tmp_path, capsys):
    pred, truth = blobs(90, 70, 1), blobs(90, 70, 2, 0.1)
    write_classes(tmp_path / "classes.json", ClassSet(CLASSES, default_palette(3)))
    save(tmp_path / "pred" / "x.png", pred)
    save(tmp_path / "label" / "x.png", truth)
    tiff(tmp_path / "tpred" / "x.tif", pred, nodata=255)
    tiff(tmp_path / "tlabel" / "x.tif", truth.masked_fill(truth == 255, 9), nodata=9)
    found = {}
    for name, folders, more in (
        ("whole", ("pred", "label"), []),
        ("parts", ("pred", "label"), ["--large"]),
        ("tiffs", ("tpred", "tlabel"), ["--large"]),
    ):
        words = ["--pred", str(tmp_path / folders[0]), "--label", str(tmp_path / folders[1])]
        assert main(["evaluate", *words, *more, "--out", str(tmp_path / "out.json")]) == 0
        found[name] = json.loads((tmp_path / "out.json").read_text())
    assert "anatomy" in found["whole"] and "anatomy" not in found["parts"]
    for key in ("miou", "pixel_accuracy", "boundary_iou", "boundary_f", "trimap_iou", "per_class", "settings"):
        assert found["whole"][key] == found["parts"][key] == found["tiffs"][key], key
    assert "mIoU" in capsys.readouterr().out


def test_a_tiff_that_holds_no_class_indices_is_named(tmp_path, capsys):
    write_classes(tmp_path / "classes.json", ClassSet(CLASSES, default_palette(3)))
    label = torch.arange(9).byte().view(3, 3) % 3
    tiff(tmp_path / "label" / "x.tif", label)
    words = ["evaluate", "--label", str(tmp_path / "label"), "--large", "--pred"]
    for name, bad, said in (
        ("values", label + 5, "x.tif: expected class indices or 255 (void), found 5, 6, 7"),
        ("floats", label / 2, "x.tif: expected one band of class indices, found 1 of float32"),
    ):
        tiff(tmp_path / name / "x.tif", bad)
        assert main([*words, str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_a_label_that_is_cut_short_is_named(tmp_path, capsys):
    write_classes(tmp_path / "classes.json", ClassSet(CLASSES, default_palette(3)))
    label = blobs(300, 300, 0)
    for name in ("pred", "label"):
        tiff(tmp_path / name / "x.tif", label)
    file = tmp_path / "label" / "x.tif"
    file.write_bytes(file.read_bytes()[:60_000])
    assert main(["evaluate", "--pred", str(tmp_path / "pred"), "--label", str(tmp_path / "label"), "--large"]) == 1
    error = capsys.readouterr().err
    assert f"{file}: damaged, cut short or no TIFF: rows 0–299 cannot be read: " in error and error.count("\n") == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory, scenes):
    from safetensors.torch import save_file

    from crispseg.data import read_classes

    path = tmp_path_factory.mktemp("runs") / "tiny"
    config = Config(
        data=DataConfig(root=str(scenes)), model=ModelConfig(decoder="fcn", decoder_channels=8, pretrained=False)
    )
    torch.manual_seed(0)
    configs.write(config, path / "config.yaml")
    write_classes(path / "classes.json", read_classes(scenes / "classes.json"))
    save_file(make_model(config, 6).state_dict(), path / "model.safetensors")
    return path


def test_a_run_on_large_pictures_is_measured_as_predict_large_predicts_with_its_seams(run, scenes, tmp_path, capsys):
    words = ["evaluate", "--run", str(run), "--device", "cpu", "--large", "--window", "32", "32", "--overlap", "0"]
    assert main([*words, "--out", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    model, maps, counts = load_run(run).model, [], []

    class Kept:
        done, parts = 0, []

        def write(self, labels):
            self.parts = [*self.parts, labels]

    for file in sorted((scenes / "images" / "val").iterdir()):
        image = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        truth = torch.from_numpy(np.array(Image.open(scenes / "labels" / "val" / file.name)))
        sink = Kept()
        predict_large(model, Picture(image), sink, window=(32, 32), overlap=0)
        pred = torch.cat(sink.parts)
        maps.append((file.stem, pred, truth))
        whole = predict_logits(model, image / 255).argmax(0)
        counts.append(seam_difference(pred, whole, [32], [32], 6))
    expected = suite(maps, tuple(found["classes"])).summary()
    assert found["miou"] == expected["miou"] and found["boundary_f"] == expected["boundary_f"]
    seams = found["seams"]
    assert (seams["pictures"], seams["overlap"], seams["window"], seams["cells"]) == (4, 0, [32, 32], 16)
    near = [sum(each["pixels"][i] for each in counts) for i in (0, 1)]
    assert seams["pixels"] == near
    assert seams["near"] == pytest.approx(sum(each["near"] * each["pixels"][0] for each in counts) / near[0])
    assert seams["interval"][0] < seams["difference"] < seams["interval"][1]
    assert "seams: windows that overlap by 0 px against one whole pass, of 4 pictures" in capsys.readouterr().out


def test_where_one_window_holds_the_picture_there_is_no_seam(run, tmp_path, capsys):
    words = ["evaluate", "--run", str(run), "--device", "cpu", "--large", "--out", str(tmp_path / "out.json")]
    assert main(words) == 0
    assert "seams" not in json.loads((tmp_path / "out.json").read_text())
    assert "seams" not in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--refine crf", "--label-size 9 9", "--stride 8 8 --window 9 9"])
def test_what_needs_whole_maps_is_refused(run, flag, capsys):
    assert main(["evaluate", "--run", str(run), "--large", *flag.split()]) == 2
    assert f"{flag.split()[0]} does not go with --large" in capsys.readouterr().err
