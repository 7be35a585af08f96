import math

import pytest
import torch

from mask2former.solver.schedules import cosine, make_scheduler, multi_step, polynomial, restore_scheduler, warmup
from mask2former.utils.errors import UserError


def rates(schedule, warm, steps, base=2.0):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    scheduler = make_scheduler(optimizer, schedule, warm)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_multi_step_drops_at_each_milestone():
    got = rates(multi_step([3, 5], 0.1), warmup(0, 1.0), 7)
    assert got == pytest.approx([2, 2, 2, 0.2, 0.2, 0.02, 0.02])


def test_polynomial_follows_the_formula_and_ends_at_zero():
    factor = polynomial(10, 0.9)
    assert [factor(i) for i in range(10)] == pytest.approx([(1 - i / 10) ** 0.9 for i in range(10)])
    assert factor(10) == 0 and factor(11) == 0


def test_polynomial_stays_at_its_floor():
    factor = polynomial(10, 1.0, floor=0.35)
    assert [factor(i) for i in (5, 6, 7, 9, 10)] == pytest.approx([0.5, 0.4, 0.35, 0.35, 0.35])


def test_cosine_goes_from_one_to_the_end_value():
    factor = cosine(8, 0.2)
    assert [factor(0), factor(4), factor(8), factor(9)] == pytest.approx([1, 0.6, 0.2, 0.2])
    assert factor(2) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize(
    ("method", "expected"), [("linear", [0.1, 0.4, 0.7, 1, 1]), ("constant", [0.1, 0.1, 0.1, 1, 1])]
)
def test_warmup(method, expected):
    factor = warmup(3, 0.1, method)
    assert [factor(i) for i in range(5)] == pytest.approx(expected)


def test_warmup_multiplies_the_schedule():
    poly, warm = polynomial(10, 0.9), warmup(4, 0.5)
    assert rates(poly, warm, 10) == pytest.approx([2 * poly(i) * warm(i) for i in range(10)])


def test_no_warmup_starts_at_the_base_rate():
    assert rates(polynomial(10, 0.9), warmup(0, 0.001), 1) == [2.0]


def test_unknown_warmup_method_is_refused():
    with pytest.raises(UserError, match=r"SOLVER.WARMUP_METHOD is 'burst'"):
        warmup(10, 0.1, "burst")


def test_restored_schedule_goes_on_at_the_same_place_with_new_base_rates():
    def fresh(base):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
        return optimizer, make_scheduler(optimizer, polynomial(10, 0.9), warmup(2, 0.1))

    optimizer, scheduler = fresh(1.0)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    for base in (1.0, 3.0):
        other, resumed = fresh(base)
        restore_scheduler(resumed, scheduler.state_dict())
        assert other.param_groups[0]["lr"] == base * optimizer.param_groups[0]["lr"]
        other.step()
        resumed.step()
        assert other.param_groups[0]["lr"] == base * polynomial(10, 0.9)(5)
