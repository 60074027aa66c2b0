"""A neck is attached in the host's number type and on its device, whatever these are."""

import pytest
import torch

from crispseg import attach, build_model
from crispseg.models import adapter_parameters

PLACES = [{}]  # where: attach's own choice


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("where", PLACES, ids=str)
def test_the_neck_takes_the_hosts_number_type(dtype, where):
    torch.manual_seed(0)
    host = build_model("test_resnet", "fcn", 5, neck="none", pretrained=False).eval().to(dtype)
    images = torch.rand(1, 3, 64, 64, dtype=dtype)
    with torch.no_grad():
        before = host(images)
        attach(host, **where)
        assert {p.dtype for p in adapter_parameters(host)} == {dtype}
        after = host(images)
    assert after.dtype == before.dtype == dtype and torch.equal(after, before)
    host(images).float().square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in adapter_parameters(host))
