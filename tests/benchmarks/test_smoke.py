"""Every benchmark runs from its command to its result and its table, on shapes so small that numbers mean nothing."""

import json
import sys
import types

import pytest

from benchmarks import (
    attach,
    busy,
    exports,
    loader,
    measure,
    models,
    neck,
    operator,
    operator_page,
    operator_pieces,
    refiner,
    solvers,
    trainer,
)

PAGES = {"PAGE": "performance.md", "DOCS": "metrics.md", "PLOT": "scaling.svg"}


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """``bench(module, "--flag", …)``: run a benchmark's command, its results and pages in a folder; return the rows."""

    def run(module: types.ModuleType, *words: object, **constants: object) -> dict:
        for part in (measure, operator, operator_page, module):
            if hasattr(part, "RESULTS"):
                monkeypatch.setattr(part, "RESULTS", tmp_path)
        for part in (operator_page, module):
            for name, file in PAGES.items():
                if hasattr(part, name):
                    monkeypatch.setattr(part, name, tmp_path / file)
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words)])
        monkeypatch.setattr("torch.set_num_threads", lambda number: None)  # the tests have one
        module.main()
        return {path.stem: json.loads(path.read_text())["rows"] for path in tmp_path.glob("*.json")}

    return run


def counted(rows):
    assert rows and all(row["calls"] >= 5 for row in rows), rows
    return rows


def test_loader(bench):
    rows = bench(loader, PICTURES=3, SIZE=(64, 64), WORKERS=(1, 2))["loader"]
    assert [(row["workers"], row["way"]) for row in rows] == [(n, way) for n in (1, 2) for way in loader.WAYS]
    assert "loader process" in loader.page(rows, measure.stamp())


def test_attach(bench, tmp_path):
    rows = counted(bench(attach, "--only", "LR-ASPP", "--seconds", 0, SIZE=64)["attach"])
    assert [row["options"] for row in rows] == [{}, {"place": "encoder"}]
    assert all(row["both_operations"] > row["host_operations"] > 0 for row in rows)
    (tmp_path / "README.md").write_text("<!-- table attach -->\n<!-- /table -->\n")
    bench(attach, "--page", tmp_path / "README.md")
    page = (tmp_path / "README.md").read_text()
    assert page.count("| torchvision | LR-ASPP") == 2
    assert f"{measure.spread(row['calls'] for row in rows)} interleaved calls" in page


def test_refiner(bench, tmp_path):
    small = {"SIZES": {(40, 48): 3}, "REFINERS": ("crispseg", "guided")}
    rows = counted(bench(refiner, "--seconds", 0, **small)["refiner"])
    assert [row["refiner"] for row in rows] == ["crispseg", "guided"]
    (tmp_path / "performance.md").write_text("<!-- table refiner-speed -->\n<!-- /table -->\n")
    bench(refiner, "--table", **small)
    assert "| 48×40, 3 classes | " in (tmp_path / "performance.md").read_text()


def test_models(bench, tmp_path):
    for seconds in ("0", "0.5"):  # the second row takes the place of the first
        (row,) = counted(bench(models, "--only", "pidnet", "--size", 32, 64, "--seconds", seconds)["models"])
    (tmp_path / "performance.md").write_text("<!-- table models -->\n<!-- /table -->\n")
    bench(models, "--table")
    lines = (tmp_path / "performance.md").read_text().splitlines()
    assert [line.split(" | ")[-1] for line in lines if line.startswith("| pidnet_s")] == [f"{row['calls']} |"]


def test_neck(bench):
    systems = (("tf_efficientnet_lite0", "fcn"),)
    necks = {name: neck.NECKS[name] for name in ("none", "sdn, width=128")}
    rows = counted(bench(neck, "--size", 64, "--seconds", 0, SYSTEMS=systems, NECKS=necks)["neck"])
    assert [row["neck"] for row in rows] == list(necks)


@pytest.mark.slow
def test_exports(bench, tmp_path):
    name = "torchvision: LR-ASPP, MobileNetV3"
    (row,) = bench(exports, "--only", name, "--formats", "onnx", SIZE=(64, 96))["exports"]
    assert row["takes"].startswith("images of any size") and row["boundary_f"]["1"] > 0.999
    counted(bench(exports, "--speed", "--only", name, "--seconds", 0, TIMED=(64, 96))["export_speed"])
    tables = "<!-- table exports -->\n<!-- /table -->\n<!-- table export-speed -->\n<!-- /table -->\n"
    (tmp_path / "export.md").write_text(tables)
    bench(exports, "--page", tmp_path / "export.md")
    assert (tmp_path / "export.md").read_text().count(f"| {name} |") == 2


@pytest.mark.slow
def test_trainer(bench):
    rows = counted(bench(trainer, "--size", 32, "--turns", 5, STEPS=2)["trainer"])
    assert [row["neck"] for row in rows] == ["none", "sdn"] and all(row["rate"] > 0 for row in rows)


@pytest.mark.slow
def test_operator_and_its_page(bench, tmp_path):
    rows = counted(bench(operator, "--shapes", "2x18x6", "--seconds", 0)["operator"])
    seen = {(row["operator"], row["layout"]) for row in rows}
    assert {name for name, _ in seen} == set(operator.ALL)
    assert {(name, layout) for name in ("conv2d", "auto") for layout in operator.LAYOUTS} <= seen
    bench(operator, "--only", "sizes")
    scaling = {"C": [(1, 4, 6, 6, 3)], "H·W": [(1, 4, 6, 6, 3)], "k": [(1, 4, 6, 6, 3)], "B": [(1, 4, 6, 6, 3)]}
    counted(bench(operator, "--only", "scaling", "--seconds", 0, SCALING=scaling)["operator_scaling"])
    pieces = {"SHAPES": ((1, 64, 9, 9),), "routes": lambda C, pixels, seconds: ROUTES(C, pixels, 0.0),
              "whole": lambda shape, seconds: WHOLE(shape, 0.0)}  # fmt: skip
    counted(bench(operator_pieces, **pieces)["operator_pieces"])
    (tmp_path / "performance.md").write_text(f"before\n{operator_page.BEGIN}\n{operator_page.END}\nafter\n")
    bench(operator_page)
    page = (tmp_path / "performance.md").read_text()
    assert page.startswith("before") and page.endswith("after\n")
    assert "| 2×18×6×6 | unfold |" in page and "### What was tried" in page
    assert page.count("Medians of 5 interleaved calls.") == 2  # how cost grows, what was tried
    assert (tmp_path / "scaling.svg").read_text().startswith("<?xml")


ROUTES, WHOLE = operator_pieces.routes, operator_pieces.whole


@pytest.mark.slow
def test_solvers(bench):
    steps = {"explicit": (1 / 4, 0.3), "aos": (2.0,), "fed": (2.0,)}
    few = {"TIME": 4.0, "STEPS": steps, "LAMBDAS": [0.1], "NECKS": ("none", "diffusion-1"), "SECONDS": 0.0}
    rows = bench(solvers, **few, BATCH=2, CROP=(32, 32), grey_scene=lambda: small_scene())["solvers"]
    assert len(counted(rows["error"])) == 2 * 4
    assert [row["neck"] for row in counted(rows["network"])] == ["none", "diffusion-1"]


def small_scene():
    image, label = GREY()
    return image[..., 48:72, 48:72], label[..., 48:72, 48:72]


GREY = solvers.grey_scene


def test_diffusion(bench):
    pytest.importorskip("SimpleITK")
    pytest.importorskip("medpy")
    from benchmarks import diffusion

    (row,) = counted(bench(diffusion, "--sizes", 32, "--seconds", 0)["diffusion"]["sizes"])
    same = row["largest difference"]
    assert max(same["as SimpleITK"], same["as medpy"]) < 1e-5 < same["change of the picture"]


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI warns about itself
def test_metrics(bench, tmp_path):
    pytest.importorskip("cv2")
    pytest.importorskip("monai")
    from benchmarks import metrics

    sizes = {"120×240, 3 classes": (120, 240, 3)}
    (tmp_path / "metrics.md").write_text("<!-- benchmark: x -->\n<!-- /benchmark -->\n")
    rows = counted(bench(metrics, "--seconds", 0, SIZES=sizes)["metrics"])
    assert {row["what"].split()[0].strip(",") for row in rows} == {"crispseg", "OpenCV", "scipy", "MONAI"}
    assert "median of 5 interleaved calls" in (tmp_path / "metrics.md").read_text()


@pytest.mark.parametrize("name", ["models", "attach"])
def test_no_result_is_kept_of_fewer_calls_than_five(name):
    rows = json.loads((measure.RESULTS / f"{name}.json").read_text())["rows"]
    counted(rows)


def test_busy(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(busy, "WAYS", {"one thread": {"OMP_NUM_THREADS": "1"}})
    cases = {"BESIDE": (1,), "LATER": (), "NECKS": ("none",)}
    (row,) = counted(bench(busy, "--rounds", 1, "--seconds", 0, **cases)["busy"])
    assert (row["way"], row["later"], row["threads"]) == ("one thread", False, [1])
    (tmp_path / "performance.md").write_text("<!-- table busy -->\n<!-- /table -->\n")
    bench(busy, "--table")
    assert (tmp_path / "performance.md").read_text().count("| one thread") == 1
