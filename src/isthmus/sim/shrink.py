"""Make a failing plan smaller: leave out faults and payments as long as the finding stays."""

from collections.abc import Callable

from isthmus.sim.plan import Plan
from isthmus.sim.world import Result, World


def shrink(plan: Plan, *, tell: Callable[[str], None] = lambda text: None) -> Result | None:
    """The run of the smallest plan that still has a finding of the first one's kind; None if there is no finding."""
    result = World(plan).run()
    if not result.findings:
        return None
    kind = result.findings[0].kind
    tell(f"seed {plan.seed}: {kind}, with {len(plan.faults)} faults and {len(plan.payments)} payments")
    numbers = {
        "faults": [fault.number for fault in plan.faults],
        "payments": [payment.number for payment in plan.payments],
    }
    gone: dict[str, tuple[int, ...]] = {"faults": (), "payments": ()}
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for what, all_numbers in numbers.items():
            # Large parts first, then one by one.
            size = max(1, len(all_numbers) // 2)
            while size:
                for part in _parts([number for number in all_numbers if number not in gone[what]], size):
                    without = gone | {what: tuple(sorted((*gone[what], *part)))}
                    found = World(plan.without(faults=without["faults"], payments=without["payments"])).run()
                    if any(one.kind == kind for one in found.findings):
                        gone, result, is_smaller = without, found, True
                        tell(f"without {what} {', '.join(map(str, part))} it is still there")
                size //= 2
    return result


def _parts(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[at : at + size] for at in range(0, len(numbers), size)]
