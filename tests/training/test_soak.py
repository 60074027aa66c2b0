"""A long training and many predictions: memory and open files stay flat, what is written stays bounded."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config, write_set

from crispseg.inference import predict_files
from crispseg.runs import load_run
from crispseg.training import loop, train

STEPS = [pytest.param(20_000, 0.02, marks=pytest.mark.slow)]
PICTURES = [pytest.param(10_000, 0.02, marks=pytest.mark.slow)]


class Meter:
    """Resident memory in bytes and open files, read after a quarter of the work, when caches are warm, and later."""

    def __init__(self, work):
        self.work, self.done, self.seen = work, 0, []

    def count(self):
        self.done += 1
        if self.done % (self.work // 8) == 0 and self.done >= self.work // 4:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.seen.append((pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))))

    def check(self, share):
        (memory, files), *later = self.seen
        assert len(later) >= 5
        assert max(m for m, _ in later) < (1 + share) * memory, self.seen
        assert max(f for _, f in later) <= files, self.seen


@pytest.mark.parametrize(("steps", "share"), STEPS)
def test_a_long_training_takes_no_more_and_more(tmp_path, monkeypatch, steps, share):
    write_set(tmp_path, train=4, val=1)
    meter, step = Meter(steps), loop._step

    def counted(*arguments):
        meter.count()
        return step(*arguments)

    monkeypatch.setattr(loop, "_step", counted)
    rows = 20
    config = tiny_config(tmp_path, epochs=steps // 2, checkpoint_every=steps // rows, validate_every=steps // rows)
    train(config, tmp_path / "run")
    meter.check(share)
    out = tmp_path / "run"
    assert len((out / "log.csv").read_text().splitlines()) <= 2 * rows + 1
    assert sum(file.stat().st_size for file in (out / "tensorboard").iterdir()) < 1000 * 2 * rows
    assert len(list((out / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize(("count", "share"), PICTURES)
def test_many_predictions_take_no_more_and_more(tmp_path, count, share):
    write_set(tmp_path, train=4, val=1)
    config = tiny_config(tmp_path, epochs=1)
    train(config, tmp_path / "run")
    loaded = load_run(tmp_path / "run", factory=config.model.factory)
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for i in range(count):
        Image.fromarray(noise).save(tmp_path / "photos" / f"{i}.png", compress_level=1)
    meter = Meter(count)

    def track(pictures):
        for picture in pictures:
            meter.count()
            yield picture

    outcome = predict_files(
        loaded.model, loaded.classes, [tmp_path / "photos"], tmp_path / "out", source="run", track=track
    )
    assert len(outcome.written) == count and not outcome.failed
    meter.check(share)
