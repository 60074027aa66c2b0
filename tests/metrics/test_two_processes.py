"""Under DDP, two gloo processes that saw half of the images each hold the integers of one that saw all of them."""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from crispseg.metrics import BoundaryFScore, BoundaryIoU, MeanIoU, TrimapIoU


def images(count=5):
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(count, 3, 6, 8, generator=generator)
    pred, truth = (torch.nn.functional.interpolate(field + x, (48, 64)).argmax(1) for x in (0.4, 0))
    pred = (pred + (torch.rand(pred.shape, generator=generator) < 0.1)) % 3
    truth[:, :4] = 255
    return pred, truth


def metrics():
    return {
        "miou": MeanIoU(3),
        "boundary_iou": BoundaryIoU(3),
        "boundary_f": BoundaryFScore(3),
        "trimap_iou": TrimapIoU(3),
        "by_image": BoundaryFScore(3, average="image"),
    }


def worker(rank, folder):
    os.environ |= {"MASTER_ADDR": "localhost", "GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    pred, truth = images()
    out = {}
    for name, metric in metrics().items():
        for index in range(rank, len(pred), 2):  # three images here, two there
            metric.update(pred[index : index + 1], truth[index : index + 1])
        out[name] = metric.compute()
    torch.save(out, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")
def test_two_processes_hold_the_integers_of_one(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=worker, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    pred, truth = images()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, metric in metrics().items():
            metric.update(pred, truth)
            for key, expected in metric.compute().items():
                if not isinstance(expected, torch.Tensor):
                    assert found[name][key] == expected
                elif name == "by_image" and key != "boundary_pixels":  # sums of float64
                    torch.testing.assert_close(found[name][key], expected, rtol=1e-14, atol=0, equal_nan=True)
                else:
                    assert torch.equal(found[name][key].nan_to_num(-1), expected.nan_to_num(-1)), (name, key)
