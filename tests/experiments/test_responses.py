"""Where operators answer: a step of u that is a border, a guide that sees it or not; the command on a trained run."""

import sys

import pytest
import torch
import yaml

from crispseg.data import find_samples, read_image
from crispseg.nn import SemanticDifferenceConv2d
from crispseg.runs import load_run
from experiments import look, responses, study


def test_s_is_low_where_the_guide_steps_and_one_elsewhere():
    u = torch.zeros(1, 2, 4, 6)
    v = torch.zeros(1, 2, 4, 6)
    v[..., 3:] = 1.0
    operator = SemanticDifferenceConv2d(2, 2, similarity="gaussian", scale=0.1)
    found = responses.quantities(operator, u, v, operator(u, v))
    assert set(found) == {"response", "step", "S"}
    assert (found["S"][..., :2] == 1).all() and (found["S"][..., 2] < 0.6).all()  # 3 of 4 neighbours are across
    assert found["response"].abs().max() == 0 and found["step"].abs().max() == 0


def test_an_operator_blind_to_the_guide_has_no_s():
    u = torch.rand(1, 2, 4, 6)
    found = responses.quantities(torch.nn.Conv2d(2, 2, 3, padding=1), u, u, u)
    assert set(found) == {"response", "step"}
    torch.testing.assert_close(found["response"], u.mean(1, keepdim=True))


@pytest.mark.parametrize(("place", "operators"), [("head", 1), pytest.param("encoder", 4, marks=pytest.mark.slow)])
def test_the_commands_measure_and_show_every_operator_of_a_run(place, operators, scenes, tmp_path, monkeypatch, capsys):
    base = {
        "data": {"root": str(scenes), "crop": [32, 32], "workers": 0},
        "model": {
            "pretrained": False,
            "decoder_channels": 16,
            "place": place,
            "neck_options": {"similarity": "charbonnier"},
        },
        "training": {"batch_size": 4, "epochs": 1, "accelerator": "cpu"},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    tree = {"base": str(tmp_path / "base.yaml"), "seeds": [0], "rows": {"sdn": {}, "conv": {"model.neck": "conv"}}}
    (tmp_path / "why.yaml").write_text(yaml.safe_dump(tree))
    where = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", ["study", str(tmp_path / "why.yaml"), *where])
    study.main()
    page = tmp_path / "page.md"
    page.write_text("<!-- table responses -->\n<!-- /table -->\n")
    runs = [str(tmp_path / "runs" / "why" / f"{row}-s0") for row in ("sdn", "conv")]
    monkeypatch.setattr(sys, "argv", ["x", *runs, "--results", str(tmp_path / "r"), "--page", str(page)])
    responses.main()
    lines = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| why/")]
    assert len(lines) == 2 * operators
    for cells in lines:
        assert cells[3].endswith("×") and cells[4].endswith("×")
        assert (cells[5] == "–") == (cells[0] == "| why/conv")
    assert all(0.9 < float(cells[5]) <= 1 for cells in lines if cells[0] == "| why/sdn")

    samples, _ = find_samples(scenes, "val")
    image = read_image(samples[0].image)
    classes, answers = look.answers(load_run(runs[0]), image)
    assert classes.shape == image.shape[1:]
    assert len(answers) == operators and answers == sorted(answers, key=lambda y: y[0].numel(), reverse=True)
    picture = tmp_path / "look.png"
    monkeypatch.setattr(
        sys, "argv", ["x", *runs, "--images", "0", "1", "--label-size", "32", "48", "--out", str(picture)]
    )
    look.main()
    gap, lines, width = 6, 2 * (1 + operators), 48
    drawn = read_image(picture)
    assert drawn.shape[2] == 3 * width + 2 * gap and drawn.shape[1] > lines * 32
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["x", *runs, "--images", "1000"])
    with pytest.raises(SystemExit):
        look.main()
    assert "--images: expected 0 to" in capsys.readouterr().err
