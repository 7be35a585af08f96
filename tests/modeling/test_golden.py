"""Five seeded training steps against stored losses: any change of the arithmetic shows.

`python tests/modeling/test_golden.py` stores them anew; say in the commit why they changed.
"""

import json
import zlib
from pathlib import Path

import pytest
import torch

from mask2former.modeling import build_model

GOLDEN = Path(__file__).parent.parent / "golden" / "tiny_five_steps.json"


def fill(model):
    """Weights that depend on their names and shapes alone, so that no library's initialisation matters."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            g = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            noise = torch.randn(parameter.shape, generator=g, dtype=torch.float64)
            scale = 0.1 if parameter.dim() == 1 else parameter[0].numel() ** -0.5
            centre = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
            parameter.copy_(centre + scale * noise)


def five_steps(cfg, inputs):
    model = build_model(cfg).double()
    fill(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(7)
    steps = []
    for _ in range(5):
        losses = model(inputs)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        steps.append({name: float(value.detach()) for name, value in losses.items()})
    return steps


def test_five_steps_are_as_stored(tiny_cfg, make_inputs):
    stored = json.loads(GOLDEN.read_text())
    for step, (got, wanted) in enumerate(zip(five_steps(tiny_cfg, make_inputs()), stored, strict=True)):
        assert got == pytest.approx(wanted, rel=1e-6), f"step {step}"


if __name__ == "__main__":
    from tests.modeling.conftest import _make_inputs, tiny_config

    GOLDEN.write_text(json.dumps(five_steps(tiny_config(), _make_inputs()), indent=1) + "\n")
