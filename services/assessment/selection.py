"""Which item is asked next, or why none is: local arithmetic over a bank, without a model.

An item is worth the information it is expected to give under the present posterior, the sum over theta of p(theta |
scores) I(theta) (van der Linden 1998, Psychometrika 63, 201-216; compared for graded items by Choi &
Swartz 2009, Applied Psychological Measurement 33(6), 419-440). The plan's coverage goes before it, in two phases
after Cheng & Chang (2009, British Journal of Mathematical and Statistical Psychology 62, 369-383): first the skills
that are short of their minimum, in the plan's order, so that the talk moves from topic to topic; then any skill below
its maximum, each item's worth multiplied by the skill's weight and by the part of its quota that is left.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from services.assessment.ability import Belief
from services.assessment.bank import Bank
from services.assessment.domain import Ask, Decision, Done, DoneReason, ItemId, Plan, ScoredAnswer, SkillId, SkillQuota

LOOKAHEAD = 5
"""How many items a decision names at most: the next question and four that would follow."""


def decide(bank: Bank, plan: Plan, asked: Iterable[ItemId], scored: Sequence[ScoredAnswer]) -> Decision:
    """The next items in the order in which they would be asked, or that the interview is done.

    A function of its arguments' *sets*: neither the order of `asked` nor that of `scored` matters, so a late score
    changes the next decision exactly as a punctual one would have. An item in `asked` is never named; one that this
    version of the bank no longer has counts towards the total only. Equal worth is settled by item id.
    """
    already = frozenset(asked)
    belief = Belief.given(bank.curves, scored)
    ability = belief.ability()
    counts = _asked_by_skill(bank, plan, already)
    if len(already) >= plan.max_items:
        return Done(DoneReason.MAX_ITEMS, ability)
    covered = len(already) >= plan.min_items and all(counts[quota.skill] >= quota.min_items for quota in plan.quotas)
    if covered and ability.standard_error <= plan.target_standard_error:
        return Done(DoneReason.PRECISION, ability)
    # Rounded, because the last bits of a product differ between processors and a tie must be one everywhere.
    worth: list[float] = np.round(bank.curves.information @ belief.weights, 9).tolist()
    length = min(LOOKAHEAD, plan.max_items - len(already))
    rows = tuple(islice(_continuation(plan, counts, _open_rows(bank, plan, already, worth), worth), length))
    if not rows:
        return Done(DoneReason.EXHAUSTED, ability)
    return Ask(tuple(bank.items[row] for row in rows), ability)


def _asked_by_skill(bank: Bank, plan: Plan, already: frozenset[ItemId]) -> dict[SkillId, int]:
    counts = {quota.skill: 0 for quota in plan.quotas}
    for item_id in already:
        item = bank.item(item_id)
        if item is not None and item.skill in counts:
            counts[item.skill] += 1
    return counts


def _open_rows(bank: Bank, plan: Plan, already: frozenset[ItemId], worth: Sequence[float]) -> dict[SkillId, list[int]]:
    """Each skill's items that may still be asked, the one of least worth first, so that `pop` takes the best."""
    return {
        quota.skill: sorted(
            (row for row in bank.rows_by_skill[quota.skill] if bank.items[row].id not in already),
            key=lambda row: (worth[row], -row),
        )
        for quota in plan.quotas
    }


def _continuation(
    plan: Plan, counts: Mapping[SkillId, int], open_rows: Mapping[SkillId, list[int]], worth: Sequence[float]
) -> Iterator[int]:
    """The rows that would be asked one after another if no further score came in."""
    taken = dict(counts)

    def priority(quota: SkillQuota) -> float:
        left = (quota.max_items - taken[quota.skill]) / quota.max_items
        return quota.weight * left * worth[open_rows[quota.skill][-1]]

    while True:
        possible = [quota for quota in plan.quotas if taken[quota.skill] < quota.max_items and open_rows[quota.skill]]
        if not possible:
            return
        owed = [quota for quota in possible if taken[quota.skill] < quota.min_items]
        chosen = owed[0] if owed else max(possible, key=lambda quota: (priority(quota), -open_rows[quota.skill][-1]))
        taken[chosen.skill] += 1
        yield open_rows[chosen.skill].pop()
