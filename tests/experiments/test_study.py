"""The experiments' driver on a small real study: train, evaluate, go on after a cut, tables from the files alone."""

import json
import re
import subprocess
import sys

import pytest
import torch
import yaml

from crispseg import UsageError, runs
from crispseg import config as configs
from crispseg.evaluation import read_counts
from crispseg.nn import SemanticDiffusion
from experiments import differences, figure, kept, questions, responses, study, table

LEVELS = {"unet": 5, "fpn": 4, "deeplab": 2, "unet-resnet": 5, "lraspp": 2, "segformer": 4, "segmenter": 1}
"""How many maps of a host of ``six_hosts_camvid`` its decoder reads."""


@pytest.fixture
def question(scenes, tmp_path):
    base = {
        "data": {"root": str(scenes), "crop": [32, 32], "workers": 0},
        "model": {"pretrained": False, "decoder_channels": 16},
        "training": {"batch_size": 4, "epochs": 1, "accelerator": "cpu"},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    tree = {
        "base": str(tmp_path / "base.yaml"),
        "label_size": [32, 48],
        "seeds": [0, 1],
        "all": {"model.place": "head"},
        "rows": {"sdn": {"model.neck_options.similarity": "gaussian"}, "none": {"model.neck": "none"}},
    }
    path = tmp_path / "does_it_help.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def carry_out(monkeypatch, module, tmp_path, *words):
    monkeypatch.setattr(sys, "argv", ["x", *map(str, words), "--results", str(tmp_path / "results")])
    module.main()


def test_a_study_trains_what_is_missing_and_its_table_has_a_line_for_each_row(question, tmp_path, monkeypatch, capsys):
    words = (question, "--runs", tmp_path / "runs")
    carry_out(monkeypatch, study, tmp_path, *words, "--seeds", "0", "--rows", "sdn")
    assert capsys.readouterr().out.split() == ["does_it_help/sdn-s0"]
    carry_out(monkeypatch, study, tmp_path, *words, "--seeds", "0")
    assert capsys.readouterr().out.split() == ["does_it_help/none-s0"]
    carry_out(monkeypatch, study, tmp_path, *words)
    assert [line.split("/")[1] for line in capsys.readouterr().out.split()] == ["sdn-s1", "none-s1"]
    carry_out(monkeypatch, study, tmp_path, *words, "--list")
    assert capsys.readouterr().out.split()[::2] == ["done"] * 4

    numbers = kept.read(tmp_path / "results", "does_it_help")
    found = numbers["sdn-s1"]
    assert found["config"]["model"]["neck_options"]["similarity"] == "gaussian"
    assert (found["config"]["seed"], found["label_size"]) == (1, [32, 48])
    counted = read_counts(tmp_path / "results" / "does_it_help" / "sdn-s1.npz")
    assert json.loads(json.dumps(counted.summary())) == found["results"]["test"]
    page, study_file = tmp_path / "results.md", ("does_it_help", "--folder", tmp_path)
    page.write_text("before\n<!-- table does_it_help -->\nold\n<!-- /table -->\nafter\n")
    carry_out(monkeypatch, table, tmp_path, *study_file, "--page", page)
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    rows = [line.split(" | ") for line in lines if line.startswith("|")][2:]
    assert [row[:2] for row in rows] == [["| sdn", "0, 1"], ["| none", "0, 1"]]
    page.write_text("<!-- table does_it_help-val-anatomy -->\n<!-- /table -->\n")
    carry_out(
        monkeypatch,
        table,
        tmp_path,
        "does_it_help",
        "--folder",
        tmp_path,
        "--page",
        page,
        "--columns",
        "anatomy",
        "--split",
        "val",
    )
    assert "| row | seeds | wrong pixels | displaced |" in page.read_text()
    page.write_text("<!-- table does_it_help -->\n<!-- /table -->\n")
    carry_out(
        monkeypatch,
        table,
        tmp_path,
        "does_it_help",
        "--folder",
        tmp_path,
        "--page",
        page,
        "--first",
        "does_it_help/none",
    )
    names = [line.split(" | ")[0] for line in page.read_text().splitlines() if line.startswith("|")][2:]
    assert names == ["| none", "| sdn"]
    figures = ("--first", "does_it_help/none", "--figures", tmp_path)
    carry_out(monkeypatch, figure, tmp_path, *study_file, *figures)
    drawn = (tmp_path / "results_does_it_help.svg").read_text()
    assert drawn.startswith("<?xml") and "trimap IoU minus none" in drawn
    both = [numbers[f"none-s{seed}"]["results"]["test"]["miou"] for seed in (0, 1)]
    assert rows[1][2].split(" ± ")[0] == f"{50 * sum(both):.1f}"


def test_a_refined_row_is_another_rows_run_measured_anew(question, tmp_path, monkeypatch, capsys):
    tree = yaml.safe_load(question.read_text())
    tree["rows"] = {"none": tree["rows"]["none"], "smooth": {"of": "none", "refine": "guided:radius=2,epsilon=0.5"}}
    question.write_text(yaml.safe_dump(tree, sort_keys=False))
    carry_out(monkeypatch, study, tmp_path, question, "--runs", tmp_path / "runs", "--seeds", "0")
    assert [line.split("/")[1] for line in capsys.readouterr().out.split()] == ["none-s0", "smooth-s0"]
    assert [path.name for path in (tmp_path / "runs" / "does_it_help").iterdir() if path.is_dir()] == ["none-s0"]
    found = kept.read(tmp_path / "results", "does_it_help")
    plain, smooth = found["none-s0"], found["smooth-s0"]
    assert plain["refine"] is None and smooth["refine"].startswith("guided:radius=2,epsilon=0.5")
    assert plain["training"] == smooth["training"] and plain["results"] != smooth["results"]


@pytest.mark.parametrize("changes", [{"of": "nobody", "refine": "crf"}, {"of": "none"}])
def test_a_refined_row_says_of_which_and_by_what(question, changes):
    tree = yaml.safe_load(question.read_text())
    question.write_text(yaml.safe_dump({**tree, "rows": {**tree["rows"], "smooth": changes}}, sort_keys=False))
    with pytest.raises(UsageError, match="smooth: expected of: a row above it, and refine: what refines its scores"):
        study.read_study(question)


def test_a_run_that_another_process_trains_is_left_to_it(question, tmp_path, monkeypatch, capsys):
    with study.alone(tmp_path / "runs" / "does_it_help" / "sdn-s0") as mine:
        assert mine
        carry_out(monkeypatch, study, tmp_path, question, "--runs", tmp_path / "runs", "--seeds", "0")
    assert capsys.readouterr().out.split() == ["does_it_help/none-s0"]


def test_test_stays_closed_until_a_choice_is_committed(question, tmp_path, monkeypatch, capsys):
    def state(what="--list"):
        carry_out(monkeypatch, study, tmp_path, question, "--runs", tmp_path / "runs", "--seeds", "0", *what.split())
        return capsys.readouterr().out.split()

    def opened():
        numbers = kept.read(tmp_path / "results", "does_it_help")
        found = [numbers[f"{row}-s0"] for row in ("sdn", "none")]
        return [list(run["results"]) for run in found], len(list((tmp_path / "results").glob("*/*.npz")))

    def git(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e", *words], check=True)

    tree = yaml.safe_load(question.read_text())
    question.write_text(yaml.safe_dump(tree | {"choose": "val"}, sort_keys=False))
    state("")
    assert opened() == ([["val"], ["val"]], 0)
    assert state()[::2] == ["done", "done"]

    question.write_text(yaml.safe_dump(tree | {"choose": "val", "choice": ["sdn"]}, sort_keys=False))
    for commands in ([], [("init", "-q")], [("add", question.name)]):
        for words in commands:
            git(*words)
        with pytest.raises(SystemExit) as stop:
            state("")
        assert stop.value.code == 2 and "opens test once the file is committed" in capsys.readouterr().err
    git("commit", "-q", "-m", "The choice")
    assert state()[::2] == ["begun", "done"]
    state("")
    assert opened() == ([["val", "test"], ["val"]], 1)
    (tmp_path / "page.md").write_text("<!-- table does_it_help -->\n<!-- /table -->\n")
    where = ("does_it_help", "--folder", tmp_path, "--page", tmp_path / "page.md")
    carry_out(monkeypatch, table, tmp_path, *where)
    assert "| sdn | 0 † |" in (table_of := (tmp_path / "page.md").read_text()) and "| none |" not in table_of

    question.write_text(yaml.safe_dump(tree | {"choose": "val", "choice": ["sdn", "none"]}, sort_keys=False))
    with pytest.raises(SystemExit):
        state("")
    assert opened() == ([["val", "test"], ["val"]], 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chose": "val"}, "unknown key 'chose'; did you mean 'choose'"),
        ({"choose": "test"}, "expected choose: val"),
        ({"choice": ["sdn"]}, "expected choose: val beside choice"),
        ({"choose": "val", "choice": ["nune"]}, "choice: no row 'nune'"),
    ],
)
def test_a_choice_that_says_something_else_is_an_error(question, changes, message):
    question.write_text(yaml.safe_dump(yaml.safe_load(question.read_text()) | changes))
    with pytest.raises(UsageError, match=message):
        study.read_study(question)


@pytest.mark.slow
def test_every_host_of_the_study_takes_the_neck_where_its_rows_say(monkeypatch):
    monkeypatch.chdir(kept.HERE.parent)
    asked = study.read_study(kept.HERE / "studies" / "six_hosts_camvid.yaml")
    for name, config in asked.rows.items():
        if not name.endswith("central"):  # the cheapest; where a neck goes does not hang on its operator
            continue
        tree = configs.to_dict(config)
        tree["model"] |= {"neck": "none", "place": None, "at": None, "side": "output"}
        host = name.removesuffix("-central").removesuffix("-encoder").removesuffix("-head").removesuffix("-finest")
        assert configs.from_dict(tree) == asked.rows[f"{host}-none"]
        model = runs.make_model(config, 11).eval()
        assert model(torch.rand(1, 3, 45, 60)).shape == (1, 11, 45, 60), name
        levels = sum(isinstance(module, SemanticDiffusion) for module in model.modules())
        assert levels == (LEVELS[host] if "-encoder-" in name else 1), name


@pytest.mark.parametrize("path", sorted((kept.HERE / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_results_kept_here_are_of_what_their_study_asks(path):
    """Studies of older commits too, whose configs had keys that are gone: what a study says is compared as it is."""
    asked = yaml.safe_load(path.read_text())
    found = kept.read(kept.RESULTS, path.stem)
    assert found or "choose" in asked  # a study that is still being asked
    for name, run in found.items():
        assert name == f"{run['row']}-s{run['seed']}"
        row = asked["rows"][run["row"]]
        if "of" in row:
            assert run["refine"].startswith(row["refine"])
            row = asked["rows"][row["of"]]
        says = {**asked.get("all", {}), **row}
        says.pop("base", None)
        does = configs.leaves(run["config"])
        assert {key: does[key] for key in says} == says, name
        assert run["seed"] == does["seed"]


def test_a_study_of_an_older_commit_says_so_in_its_first_line_and_its_words_are_told():
    old = [path for path in (kept.HERE / "studies").glob("*.yaml") if "model.placement" in path.read_text()]
    assert old
    for path in old:
        assert path.read_text().startswith("# Of commit f8de21b")
        with pytest.raises(UsageError, match="write model.place"):
            study.read_study(path)


def test_the_counts_kept_here_give_the_numbers_beside_them():
    found = sorted(kept.RESULTS.glob("*/*.npz"))
    assert found
    for path in found:
        run, counted = kept.read(kept.RESULTS, path.parent.name)[path.stem], read_counts(path).headline()
        numbers = run["results"]["test"]
        assert counted["miou"] == pytest.approx(numbers["miou"], rel=1e-12), path
        for metric in ("boundary_f", "trimap_iou"):
            for pixels, value in numbers[metric].items():
                assert counted[f"{metric}_{pixels}"] == pytest.approx(value, rel=1e-12), path


def test_a_row_that_asks_for_what_is_not_known_is_an_error(question):
    tree = yaml.safe_load(question.read_text())
    tree["rows"]["sdn"] = {"model.nek": "sdn"}
    question.write_text(yaml.safe_dump(tree))
    with pytest.raises(UsageError, match="unknown key 'model.nek'"):
        study.read_study(question)


def test_a_row_that_no_study_has_is_refused_with_the_nearest(question, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        carry_out(monkeypatch, study, tmp_path, question, "--runs", tmp_path / "runs", "--rows", "nune")
    assert stop.value.code == 2 and "no row 'nune'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_table_needs_its_markers(question, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("no table here")
    with pytest.raises(SystemExit, match="expected one pair of markers <!-- table x -->"):
        table.replace_table(page, "x", "text")


def trained(row, seed, processor="AMD", torch="2.15", gpu=None, **results):
    training = {"parameters": 1e6, "seconds": 60, "commit": "c0ffee1", "versions": {"torch": torch}}
    machine = {"processor": processor, "gpu": gpu, "threads": 1}
    return {"row": row, "seed": seed, "training": training | {"machine": machine}, "results": results}


def test_a_table_says_which_rows_were_trained_elsewhere_and_which_have_one_training():
    def made(*runs):
        rows = {}
        for run in runs:
            rows.setdefault(run["row"], []).append(run)
        text = table.table(rows, "val", {"mIoU": lambda result: result["miou"]})
        return [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| ")][1:], text.splitlines()[-1]

    val = {"images": 3, "miou": 0.5}
    one = [trained("a", seed, val=val) for seed in (0, 1)]
    assert made(*one)[0] == ["0, 1"] and "differ" not in made(*one)[1] and "†" not in made(*one)[1]
    seeds, foot = made(*one, trained("a", 2, "Intel", val=val), trained("b", 0, torch="2.14", val=val))
    assert seeds == ["0, 1 (b); 2 (c)", "0 (a) †"]
    assert "(a: AMD, torch 2.14; b: AMD, torch 2.15; c: Intel, torch 2.15)" in foot
    assert foot.endswith("† One training: every difference from it includes the randomness of training.")
    seeds, foot = made(*one, trained("b", 0, gpu="H200", val=val), trained("b", 1, gpu="H200", val=val))
    assert seeds == ["0, 1 (a)", "0, 1 (b)"] and "b: H200, torch 2.15" in foot and "†" not in foot


@pytest.mark.parametrize("tool", [table, differences, responses, questions], ids=lambda tool: tool.__name__)
def test_the_tables_of_the_pages_are_those_of_the_results_kept_here(tool, repository, tmp_path, monkeypatch):
    pages = {tmp_path / page.name: page.read_text() for page in (*table.PAGES, repository / "README.md")}
    for page, text in pages.items():
        page.write_text(re.sub(r"\d\.\d", "9.9", text))
    words = ["--figures", tmp_path] if tool is questions else []
    monkeypatch.setattr(sys, "argv", ["x", "--page", *map(str, pages), *map(str, words)])
    tool.main()
    there = re.compile(r"<!-- table (\S+) -->\n(.*?)<!-- /table -->", re.DOTALL)
    found = dict(pair for page in pages for pair in there.findall(page.read_text()))
    of = {
        table: lambda name: (kept.HERE / "studies" / f"{name.split('-')[0]}.yaml").is_file(),
        differences: lambda name: name.startswith("compare-"),
        responses: lambda name: name == "responses",
        questions: lambda name: name in questions.TABLES,
    }[tool]
    asked = {name: text for before in pages.values() for name, text in there.findall(before) if of(name)}
    assert asked and {name: found[name] for name in asked} == asked


def test_every_table_of_the_results_is_made_by_a_command():
    studies = {path.stem for path in (kept.HERE / "studies").glob("*.yaml")}
    for name in table.tables_of(table.PAGES):
        made = name in questions.TABLES or name == "responses" or name.startswith(differences.PREFIX)
        assert made or name.split("-")[0] in studies, name


def test_loose_files_of_another_branch_are_taken_into_their_table(tmp_path):
    (tmp_path / "asked").mkdir()
    for name, value in (("b-s0", 1), ("a-s0", 2)):
        (tmp_path / "asked" / f"{name}.json").write_text(json.dumps({"seed": value}))
    kept.put(tmp_path, "asked", **{"b-s0": {"seed": 7}, "c-s0": {"seed": 3}})
    assert kept.pack(tmp_path) == 2 and not list(tmp_path.glob("*/*.json"))
    assert kept.read(tmp_path, "asked") == {"a-s0": {"seed": 2}, "b-s0": {"seed": 1}, "c-s0": {"seed": 3}}
    before = (tmp_path / "asked.jsonl.gz").read_bytes()
    kept.put(tmp_path, "asked", **{"a-s0": {"seed": 2}})
    assert (tmp_path / "asked.jsonl.gz").read_bytes() == before  # the same entries are the same file
    kept.put(tmp_path, "asked", **{"a-s0": None})
    assert list(kept.read(tmp_path, "asked")) == ["b-s0", "c-s0"]
    assert kept.read(tmp_path, "not_asked") == {}


def test_a_gain_is_taken_between_runs_of_the_same_seed():
    def run(seed, value):
        return {"seed": seed, "results": {"test": {"trimap_iou": {"1": value, "3": 2 * value}}}}

    (found,) = figure.gains([run(0, 0.5), run(2, 0.9)], [run(1, 0.1), run(0, 0.25)], "test")
    assert found == {"1": 0.25, "3": 0.5}
    assert figure.means([found, {"1": 0.35, "3": 0.5}])[:2] == ([1, 3], [30.0, 50.0])
