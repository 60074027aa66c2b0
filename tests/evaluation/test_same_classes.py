"""Both sides of a comparison are averaged over the classes that are true; and only what is alike is compared."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crispseg.errors import UsageError
from crispseg.evaluation import Settings, Side, compare, effective_groups, estimate, holm, paired_bootstrap, suite

CLASSES = ("a", "b", "c", "stray")
IMAGES = 6


def truth(i, classes=3):
    generator = torch.Generator().manual_seed(i)
    return torch.randint(0, classes, (4, 4), generator=generator).repeat_interleave(4, 0).repeat_interleave(4, 1)


def answer(i, seed=0):
    """A truth with a tenth of its pixels wrong."""
    generator = torch.Generator().manual_seed(100 + 10 * seed + i)
    noise = torch.randint(0, 3, (16, 16), generator=generator)
    return truth(i).where(torch.rand(16, 16, generator=generator) > 0.1, noise)


def measured(maps, options=None):
    return suite([(f"i{i}", pred, target) for i, (pred, target) in enumerate(maps)], CLASSES, settings=options)


def side(seed=0, strays=(), images=IMAGES):
    maps = []
    for i in range(images):
        pred = answer(i, seed)
        for image, y, x in strays:
            if image == i:
                pred[y, x] = 3
        maps.append((pred, truth(i)))
    return measured(maps)


pixels = st.sets(st.tuples(st.integers(0, IMAGES - 1), st.integers(0, 15), st.integers(0, 15)), min_size=1, max_size=8)


@settings(max_examples=5, deadline=None)
@given(pixels)
def test_stray_pixels_of_an_absent_class_cost_what_pixels_cost(strays):
    """Never a whole class: at most 8 of 1536 pixels are wrong on top; each lies in one class, and on few boundaries."""
    found = compare({"base": [side()], "more": [side(strays=strays)]}, samples=50)
    row = found["differences"]["more"]
    assert abs(row["miou"]["difference"]) < len(strays) * 0.002
    assert row["miou"]["low"] > -0.1
    assert abs(row["boundary_f_1"]["difference"]) < len(strays) * 0.01
    assert abs(row["boundary_iou"]["difference"]) < len(strays) * 0.02
    assert abs(row["trimap_iou_3"]["difference"]) < len(strays) * 0.005
    assert found["contenders"]["more"]["nowhere_true"] == {"stray": len(strays)}
    assert any("nowhere true: stray" in words for words in found["caveats"])
    # By itself it is scored as is usual: the class counts 0.
    assert (
        found["contenders"]["more"]["metrics"]["miou"]["mean"]
        < 0.76 * found["contenders"]["base"]["metrics"]["miou"]["mean"]
    )


def test_exchanging_the_sides_turns_every_sign():
    strays = {(0, 3, 3), (2, 8, 8)}
    one, other = side(strays=strays), side(seed=1)
    there = compare({"a": [one], "b": [other]}, samples=100)["differences"]["b"]
    back = compare({"a": [other], "b": [one]}, samples=100)["differences"]["b"]
    for metric in ("miou", "boundary_iou", "boundary_f_1", "trimap_iou_3", "pixel_accuracy"):
        assert there[metric]["difference"] == pytest.approx(-back[metric]["difference"])
        assert there[metric]["low"] == pytest.approx(-back[metric]["high"])


def test_a_class_that_is_true_in_few_images_jumps_in_no_sample():
    """Class 2 true in one image, both right there; a stray pixel of it in eight others must not count as a class."""
    maps, more = [], []
    for i in range(12):
        target = truth(i, classes=2)
        if i == 11:
            target[:8, :8] = 2
        pred = target.clone()
        stray = pred.clone()
        if i < 8:
            stray[5, 5] = 2
        maps.append((pred, target))
        more.append((stray, target))
    row = compare({"a": [measured(maps)], "b": [measured(more)]}, samples=300)["differences"]["b"]["miou"]
    expected = (64 / 72 - 1) / 3  # what class 2 loses in the whole set; classes 0 and 1 lose next to nothing
    assert row["difference"] == pytest.approx(expected, abs=0.005)
    assert row["low"] > 3 * expected


def test_images_are_ranked_by_the_classes_that_are_true_in_them():
    """b is better in image 0 but for a stray pixel; the usual mean of that image would call it a loss."""
    maps, better = [], []
    for i in range(4):
        pred, target = truth(i).clone(), truth(i)
        pred[0, :] = (pred[0, :] + 1) % 3
        good = target.clone() if i == 0 else pred.clone()
        good[15, 15] = 3 if i == 0 else good[15, 15]
        maps.append((pred, target))
        better.append((good, target))
    a, b = measured(maps), measured(better)
    usual = (b.per_image()["boundary_f_3"] - a.per_image()["boundary_f_3"])[0]
    found = compare({"a": [a], "b": [b]}, samples=50)["images"]["b"]
    assert usual < 0
    assert [row["name"] for row in found["wins"]] == ["i0"]
    assert found["losses"] == []


def test_one_image_or_one_group_has_no_verdict():
    single = compare({"a": [side(images=1)], "b": [side(1, images=1)]}, samples=50)
    grouped = compare({"a": [side()], "b": [side(1)]}, samples=50, group="^i")
    for found in (single, grouped):
        row = found["differences"]["b"]["miou"]
        assert (row["low"], row["high"], row["p"], row["verdict"]) == (None, None, None, "no verdict")
        assert found["verdicts"]["b"].startswith("No verdict on b and a")
        assert found["contenders"]["a"]["metrics"]["miou"]["low"] is None
        assert found["differences"]["b"]["per_class"]["a"]["iou"]["low"] is None


def test_a_class_true_in_one_group_alone_has_no_interval():
    maps = [(answer(i), truth(i, 3 if i == 0 else 2)) for i in range(6)]
    other = [(answer(i, 1), truth(i, 3 if i == 0 else 2)) for i in range(6)]
    found = compare({"a": [measured(maps)], "b": [measured(other)]}, samples=50)["differences"]["b"]["per_class"]
    assert found["c"]["iou"]["difference"] is not None
    assert found["c"]["iou"]["low"] is None
    assert found["a"]["iou"]["low"] is not None
    assert found["stray"]["iou"]["difference"] is None


def test_nothing_to_measure_is_said_without_nan():
    flat = torch.zeros(8, 8, dtype=torch.long)
    one = suite([(f"i{i}", flat, flat) for i in range(3)], CLASSES)
    found = compare({"a": [one], "b": [suite([(f"i{i}", flat, flat) for i in range(3)], CLASSES)]}, samples=50)
    assert "nan" not in str(found["verdicts"]).lower()
    assert "Not to be measured here: boundary F at 3 px" in found["verdicts"]["b"]


def test_many_classes_without_a_difference_are_not_called():
    """Forty classes, two sides of equal noise: the class table is corrected for its eighty cells."""
    names = [f"c{i}" for i in range(40)]
    called = 0
    for trial in range(2):
        generator = torch.Generator().manual_seed(trial)
        sides = {}
        maps = [torch.randint(0, 40, (20, 20), generator=generator) for _ in range(30)]
        for name in "ab":
            noisy = [torch.where(torch.rand(20, 20, generator=generator) > 0.3, m, m.roll(1)) for m in maps]
            sides[name] = [suite(zip("0123456789abcdefghijklmnopqrst", noisy, maps), names, anatomy=False)]
        rows = compare(sides, samples=200)["differences"]["b"]["per_class"].values()
        called += sum(cell["verdict"] == "these networks differ" for row in rows for cell in row.values())
    assert called <= 1


def test_the_chance_of_a_difference_is_corrected_for_those_of_its_family():
    """The three metrics of the verdict are one family, all others another; of each contender by itself."""
    sides = {name: [side(seed, images=12)] for seed, name in enumerate("abc")}
    found = compare(sides, samples=100)
    (a,), metrics = sides["a"], sides["a"][0].metrics

    def measure(counts):
        iou = metrics.region_iou(counts["region"]).where(counts["region"][..., 2, :] > 0, torch.nan)
        f = metrics.boundary_f.ratios(counts["boundary_f"])[..., 0, 1, :]
        f = f.where(counts["boundary_f"][..., 1, -1, :] > 0, torch.nan)
        return {**metrics.headline(counts, true_only=True), "iou": iou, "boundary_f": f}

    counts = [[run.counts for run in runs] for runs in sides.values()]
    drawn = paired_bootstrap(counts, torch.arange(12), measure, samples=100)
    of = []
    for runs, part in zip(sides.values(), drawn):
        whole = measure(runs[0].totals())
        of.append({m: Side(whole[m][None], part[m]) for m in part})
    families = [found["decisive"], [m for m in metrics.headline(a.totals()) if m not in found["decisive"]]]
    corrected = 0
    for name, mine in zip("bc", of[1:]):
        for family in families:
            alone = torch.stack([estimate(mine[m], of[0][m], groups=found["groups_weigh_as"]).p for m in family])
            expected = holm(alone)
            corrected += int((expected != alone).sum())
            assert [found["differences"][name][m]["p"] for m in family] == pytest.approx(expected.tolist())
        # Every class is true in every image, with as many pixels in all but rounding: the groups are the images.
        cells = [found["differences"][name]["per_class"][c][key]["p"] for key in ("iou", "boundary_f") for c in "abc"]
        weight = torch.stack([row[2] for row in a.counts["region"]])
        of_classes = [estimate(mine[m], of[0][m], groups=effective_groups(weight)).p for m in ("iou", "boundary_f")]
        assert cells == pytest.approx([p for p in holm(torch.cat(of_classes)).tolist() if p == p])
    assert corrected > 10


def test_images_are_named_from_the_largest_gain_and_the_largest_loss():
    a, b = side(images=12), side(1, images=12)
    found = compare({"a": [a], "b": [b]}, samples=10)["images"]["b"]
    gains = (b.per_image(true_only=True)[found["metric"]] - a.per_image(true_only=True)[found["metric"]]).tolist()
    assert [row["difference"] for row in found["wins"]] == sorted(gains)[::-1][:3]
    assert [row["difference"] for row in found["losses"]] == [gain for gain in sorted(gains) if gain < 0][:3]
    assert len(found["losses"]) > 1


def test_one_training_beside_several_speaks_of_methods():
    wrong = [((truth(i) + 1) % 3, truth(i)) for i in range(12)]
    sides = {"a": [side(0, images=12), side(1, images=12)], "b": [measured(wrong)]}
    assert compare(sides, samples=50)["differences"]["b"]["miou"]["verdict"] == "worse"


def test_the_same_training_twice_is_refused():
    one = side()
    with pytest.raises(UsageError, match="b: expected different trainings, found the same one twice"):
        compare({"a": [side(1)], "b": [one, one]})


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            lambda: [(answer(i)[:8], truth(i)[:8]) for i in range(IMAGES)],
            "b was not measured on the same truth as a: expected 256 labelled pixels in image i0, found 128",
        ),
        (
            lambda: [(answer(i), truth(i + 1)) for i in range(IMAGES)],
            "in image i0, region of class a, expected",
        ),
        (
            lambda: [(answer(i), truth(i).roll(5, 0) if i == 3 else truth(i)) for i in range(IMAGES)],
            "in image i3",
        ),
    ],
)
def test_other_truths_are_told_apart(other, words):
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        compare({"a": [side()], "b": [measured(other())]})


def test_other_settings_are_told_apart():
    wide = measured([(answer(i), truth(i)) for i in range(IMAGES)], Settings(width=3))
    with pytest.raises(UsageError, match="not measured on the same settings as a"):
        compare({"a": [side()], "b": [wide]})


def test_the_anatomy_of_several_trainings_counts_pixels_once():
    runs = [side(seed) for seed in range(3)]
    found = compare({"a": [side(7)], "b": runs}, samples=50)["contenders"]["b"]["anatomy"]
    alone = runs[0].anatomy.summary(CLASSES)
    assert found["labelled_pixels"] == alone["labelled_pixels"] == IMAGES * 256
    assert found["displacement_px"][0]["boundary_px"] == pytest.approx(alone["displacement_px"][0]["boundary_px"])
