"""An evaluation kept as a counts file: it comes back equal, is compared without masks, and a bad file is named."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from crispseg import DataError
from crispseg.cli import main
from crispseg.data import ClassSet, default_palette, write_classes
from crispseg.errors import UsageError
from crispseg.evaluation import Contender, Settings, read_counts, suite, train_contender, write_counts
from crispseg.evaluation.bootstrap import paired_bootstrap
from crispseg.evaluation.suite import Metrics
from crispseg.metrics import BoundaryFScore, BoundaryIoU, MeanIoU, TrimapIoU

CLASSES = ClassSet(("sky", "road", "pole"), default_palette(3))
SIDES = ("poor", "good", "better")


def truth(i):
    labels = torch.zeros(30, 40, dtype=torch.uint8)
    labels[15 + i % 7 :] = 1
    labels[5:25, 10 + i : 13 + i] = 2
    labels[:2] = 255
    return labels


def maps(shift):
    return [(f"street/{i:02}", truth(i).roll(shift, 1), truth(i)) for i in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Masks of three contenders and, of each, the counts file that ``crispseg evaluate`` writes."""
    root = tmp_path_factory.mktemp("counts")
    write_classes(root / "classes.json", CLASSES)
    for shift, side in zip((3, 2, 1), SIDES):
        for name, pred, label in maps(shift):
            for kind, values in ((side, pred.clamp(max=2)), ("label", label)):
                path = root / kind / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values.numpy()).save(path)
        words = ["evaluate", "--pred", str(root / side), "--label", str(root / "label")]
        assert main([*words, "--counts", str(root / f"{side}-s0.npz"), "--out", str(root / f"{side}.json")]) == 0
    return root


def compare(out, *words):
    code = main(["compare", *map(str, words), "--out", str(out), "--samples", "200"])
    return json.loads((out / "compare.json").read_text()) if code == 0 else code


@pytest.mark.parametrize("anatomy", [True, False])
def test_what_is_written_comes_back(tmp_path, anatomy):
    settings = Settings(tolerances=(1, 2.5), radii=(2,), width=3, border=False)
    written = suite(maps(1), CLASSES.names, settings=settings, anatomy=anatomy)
    write_counts(tmp_path / "a.npz", written)
    found = read_counts(tmp_path / "a.npz")
    assert (found.names, found.classes, found.ignore_index, found.settings) == (
        written.names,
        written.classes,
        written.ignore_index,
        written.settings,
    )
    assert found.summary() == written.summary()
    for name, table in written.per_image().items():
        assert torch.equal(table, found.per_image()[name]), name


def test_compared_from_counts_as_from_masks(folder, tmp_path):
    masks = compare(tmp_path / "masks", *(folder / side for side in SIDES), "--label", folder / "label")
    counts = compare(tmp_path / "counts", *(f"{side}={folder / side}-s0.npz" for side in SIDES))
    for key in ("verdicts", "differences", "contenders", "images", "bootstrap", "classes", "caveats"):
        assert counts[key] == masks[key], key
    page = (tmp_path / "counts" / "report.html").read_text()
    assert "Kinds of errors" in page
    assert "wins and loses most" not in page  # there is no image to show


def test_counts_stand_beside_masks(folder, tmp_path):
    words = (folder / "poor", f"good={folder / 'good-s0.npz'}", "--label", folder / "label")
    masks = compare(tmp_path / "a", folder / "poor", folder / "good", "--label", folder / "label")
    assert compare(tmp_path / "b", *words)["differences"] == masks["differences"]


def test_a_pattern_joins_trainings(folder, tmp_path):
    (folder / "good-s1.npz").write_bytes((folder / "better-s0.npz").read_bytes())
    found = compare(tmp_path, f"poor={folder}/poor-s*.npz", f"good={folder}/good-s*.npz")
    trainings = found["contenders"]["good"]["metrics"]["miou"]["trainings"]
    assert trainings == [json.loads((folder / f"{side}.json").read_text())["miou"] for side in ("good", "better")]


def test_other_images_and_settings_are_told_apart(folder, tmp_path, capsys):
    write_counts(tmp_path / "fewer.npz", suite(maps(1)[:-1], CLASSES.names))
    assert compare(tmp_path, folder / "poor-s0.npz", tmp_path / "fewer.npz") == 2
    assert "not measured on the same images as poor-s0: expected street/05, found None" in capsys.readouterr().err
    write_counts(tmp_path / "wide.npz", suite(maps(1), CLASSES.names, settings=Settings(width=5)))
    assert compare(tmp_path, folder / "poor-s0.npz", tmp_path / "wide.npz") == 2
    assert "the same settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--label", "label"], "without a need of truth"),
        (["--radii", "1"], "measured already"),
        (["other-*.npz"], "other-*.npz: nothing matches"),
        (["third=poor"], "compared with which truth?"),
    ],
)
def test_asked_wrongly(folder, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(folder)
    assert compare(tmp_path, "poor-s0.npz", "good-s0.npz", *words) == 2
    assert said in capsys.readouterr().err


def test_counts_files_are_known_by_their_suffix(folder, capsys):
    words = ["evaluate", "--pred", str(folder / "poor"), "--label", str(folder / "label"), "--counts", "counts.bin"]
    assert main(words) == 2
    assert "ends in .npz" in capsys.readouterr().err


def damaged(how):
    """The bytes of a counts file in which one thing is not as it has to be."""
    out = io.BytesIO()
    with np.load(io.BytesIO(how.pop("file")), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    about = json.loads(str(arrays["about"])) | how.pop("about", {})
    arrays = {name: array for name, array in (arrays | how).items() if array is not None}
    np.savez(out, **arrays | {"about": np.array(json.dumps(about))})
    return out.getvalue()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"about": {"format": 2}}, "format 1 is what this version reads, found 2"),
        ({"about": {"names": ["only one"]}}, "region is not int64 of shape (1, 3, 3)"),
        ({"about": {"settings": {"tolerance": 1}}}, "tolerance"),
        ({"counts.region": None}, "counts.region"),
        ({"counts.trimap": np.zeros((6, 1), np.int32)}, "trimap is not int64"),
        ({"counts.region": np.full((6, 3, 3), -1, np.int64)}, "region holds counts below 0"),
        ({"counts.region": np.full((6, 3, 3), 2**62, np.int64)}, "or of more than 2^53 pixels"),
        ({"anatomy.turns": np.zeros((2, 2), np.int64)}, "anatomy's turns is not int64 of shape (3, 3)"),
    ],
)
def test_a_file_that_is_none_is_named(folder, tmp_path, how, said):
    path = tmp_path / "bad.npz"
    path.write_bytes(damaged({"file": (folder / "poor-s0.npz").read_bytes(), **how}))
    with pytest.raises(DataError, match=r"bad\.npz: expected a counts file") as error:
        read_counts(path)
    assert said in str(error.value)


def test_a_bad_file_is_told_before_anything_is_trained(folder, tmp_path, capsys):
    (tmp_path / "bad.npz").write_bytes(b"PK")
    (tmp_path / "sdn.yaml").write_text(f"data: {{root: {folder}, workers: 0}}\nmodel: {{pretrained: false}}\n")
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for split in ("train", "val"):
            (tmp_path / "data" / kind / split).symlink_to(folder / "label", target_is_directory=True)
    write_classes(tmp_path / "data" / "classes.json", CLASSES)
    words = [tmp_path / "sdn.yaml", tmp_path / "bad.npz", "--data.root", tmp_path / "data"]
    assert compare(tmp_path / "out", *words) == 1
    assert "bad.npz: expected a counts file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_half_a_file_is_named(folder, tmp_path):
    for size in (0, 100, -100):
        (tmp_path / "half.npz").write_bytes((folder / "poor-s0.npz").read_bytes()[:size])
        with pytest.raises(DataError, match=r"half\.npz: expected a counts file"):
            read_counts(tmp_path / "half.npz")


def test_a_copy_of_a_training_is_no_second_one(folder, tmp_path, capsys):
    (tmp_path / "copy.npz").write_bytes((folder / "good-s0.npz").read_bytes())
    assert compare(tmp_path, folder / "poor-s0.npz", f"good={folder / 'good-s0.npz'},{tmp_path / 'copy.npz'}") == 2
    assert "found one twice" in capsys.readouterr().err
    with pytest.raises(UsageError, match="a seed is trained once, found 1 twice"):
        train_contender(Contender("x", "config", (folder / "x.yaml",)), [0, 1, 1], None, tmp_path)


TIMES = 2**32
"""A picture of so many times as many pixels has the same scores."""


def test_counts_of_more_than_32_bits_do_not_wrap(tmp_path, monkeypatch):
    small, counts = suite(maps(1), CLASSES.names, anatomy=False), Metrics.counts
    monkeypatch.setattr(Metrics, "counts", lambda *a: {name: x * TIMES for name, x in counts(*a).items()})
    write_counts(tmp_path / "a.npz", suite(maps(1), CLASSES.names, anatomy=False))
    large = read_counts(tmp_path / "a.npz")
    assert all(torch.equal(table, small.totals()[name] * TIMES) for name, table in large.totals().items())
    assert large.headline() == small.headline()
    for name, table in large.per_image().items():
        assert torch.equal(table, small.per_image()[name]), name
    one, other = ([dict(x.counts)] for x in (small, large))
    drawn = paired_bootstrap([one, other], torch.arange(6), small.metrics.headline, samples=20)
    assert all(torch.equal(table, drawn[1][name]) for name, table in drawn[0].items())


@pytest.mark.parametrize("average", ["dataset", "image"])
@pytest.mark.parametrize("kind", [MeanIoU, BoundaryIoU, BoundaryFScore, TrimapIoU])
def test_a_streaming_metric_of_more_than_32_bits_does_not_wrap(kind, average, monkeypatch):
    small, large = kind(3, average=average), kind(3, average=average)
    count = large.count_codes
    monkeypatch.setattr(large, "count_codes", lambda *maps: count(*maps) * TIMES)
    for _, pred, target in maps(1):
        small.update(pred, target)
        large.update(pred, target)
    assert torch.equal(large.totals, small.totals * TIMES)
    score = next(iter(small.compute()))
    assert torch.equal(large.compute()[score], small.compute()[score])


def test_counts_of_an_older_version_are_read(folder, tmp_path):
    data = (folder / "poor-s0.npz").read_bytes()
    with np.load(io.BytesIO(data)) as file:
        narrow = {name: file[name].astype(np.int32) for name in file.files if name.startswith("counts.")}
    (tmp_path / "old.npz").write_bytes(damaged({"file": data, **narrow}))
    assert read_counts(tmp_path / "old.npz").summary() == read_counts(folder / "poor-s0.npz").summary()
