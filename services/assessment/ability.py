"""How able is a candidate, given scored answers: the graded response model and the EAP estimate.

Everything that depends on the items alone is tabulated once, when a bank is loaded, on a fixed grid of abilities; an
estimate is then a handful of array operations. Nothing here knows plans or chooses items.

Sources: Samejima (1969), Psychometrika Monograph 17 (the model); Bock & Mislevy (1982), Applied Psychological
Measurement 6(4), 431-444 (EAP by quadrature); Patz, Junker, Johnson & Mariano (2002), Journal of Educational and
Behavioral Statistics 27(4), 341-384 (a reported level as a noisy sign of the true one).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from services.assessment.domain import Ability, Item, ItemId, Logits, Score, ScoredAnswer

Floats = NDArray[np.float64]

# 61 points, 0.2 logits apart. For a bell-shaped posterior the rectangle rule errs by about exp(-2 (pi s / h)^2): even
# at a standard error s of 0.2, tighter than any interview reaches, that is below 1e-8.
GRID: Floats = np.linspace(-6.0, 6.0, 61)
PRIOR: Floats = np.exp(-(GRID**2) / 2) / np.exp(-(GRID**2) / 2).sum()


def level_probabilities(discrimination: float, thresholds: Sequence[float], thetas: Floats) -> Floats:
    """P(level = k | theta) of a graded response item, shape (levels, thetas); every column sums to 1.

    With x_k = a (theta - b_k), x_0 = +inf and x_m+1 = -inf this is s(x_k) - s(x_k+1) for the logistic function s,
    written as s(x_k) s(-x_k+1) (1 - exp(x_k+1 - x_k)), which stays positive where the plain difference would cancel
    to 0.
    """
    x = _boundaries(discrimination, thresholds, thetas)
    widths = discrimination * np.diff([-math.inf, *thresholds, math.inf])[:, None]
    return _logistic(x[:-1]) * _logistic(-x[1:]) * -np.expm1(-widths)


def item_information(discrimination: float, thresholds: Sequence[float], thetas: Floats) -> Floats:
    """Fisher information of a graded response item at each theta: the sum over k of P_k'^2 / P_k, shape (thetas,).

    As P_k = u - v for u = s(x_k) and v = s(x_k+1), P_k' = a P_k (1 - u - v), and so the sum is a^2 P_k (1 - u - v)^2.
    """
    at_least = _logistic(_boundaries(discrimination, thresholds, thetas))
    slopes = 1 - at_least[:-1] - at_least[1:]
    total: Floats = (level_probabilities(discrimination, thresholds, thetas) * slopes**2).sum(axis=0)
    return discrimination**2 * total


def report_weights(score: Score, levels: int) -> list[float]:
    """P(the judge reports `score.level` | the true level is k) for k = 0 .. levels - 1.

    The judge's report r scatters around the true level k as exp(-(r - k)^2 / (2 s^2)), normalised over the item's
    levels, with s the score's standard error (Patz et al. 2002, without rater bias). A small s makes the
    report certain; a large one makes all levels alike, and then the answer tells nothing.
    """
    precision = 1 / (2 * score.standard_error**2)
    scatter = [math.exp(-precision * distance**2) for distance in range(levels)]
    return [
        scatter[abs(score.level - true)] / math.fsum(scatter[abs(reported - true)] for reported in range(levels))
        for true in range(levels)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """What a bank's items do on the grid. Row i is the i-th item; levels an item does not have are rows of zeros."""

    rows: Mapping[ItemId, int]
    levels: tuple[int, ...]
    probabilities: Floats
    """Shape (items, most levels, grid)."""
    information: Floats
    """Shape (items, grid)."""

    @classmethod
    def of(cls, items: Sequence[Item]) -> "Curves":
        """Tabulate the items, in this order."""
        levels = tuple(len(item.rubric) for item in items)
        probabilities = np.zeros((len(items), max(levels, default=0), GRID.size))
        information = np.zeros((len(items), GRID.size))
        for row, item in enumerate(items):
            probabilities[row, : levels[row]] = level_probabilities(item.discrimination, item.thresholds, GRID)
            information[row] = item_information(item.discrimination, item.thresholds, GRID)
        probabilities.setflags(write=False)
        information.setflags(write=False)
        return cls({item.id: row for row, item in enumerate(items)}, levels, probabilities, information)

    def known(self, scored: Iterable[ScoredAnswer]) -> list[tuple[int, Score]]:
        """The answers that can be evidence here, by row and in a fixed order, so that sums have the same last bits.

        An answer to an item, or with a level, that these curves do not have was measured on another scale and is
        left out.
        """
        found = ((self.rows.get(answer.item, -1), answer.score) for answer in scored)
        usable = [(row, score) for row, score in found if row >= 0 and score.level < self.levels[row]]
        return sorted(usable, key=itemgetter(0))


@dataclass(frozen=True, slots=True, eq=False)
class Belief:
    """The posterior distribution of an ability: weights on `GRID` that sum to 1, and the answers behind them."""

    weights: Floats
    answers: int

    @classmethod
    def given(cls, curves: Curves, scored: Iterable[ScoredAnswer]) -> "Belief":
        """Start from a standard normal and take each scored answer as evidence; their order does not matter.

        The likelihood of an answer is the sum over k of P(report | k) P(k | theta): `report_weights` times the item's
        curves.
        """
        evidence = curves.known(scored)
        if not evidence:
            return cls(PRIOR, 0)
        weights = np.zeros((len(evidence), curves.probabilities.shape[1]))
        for line, (row, score) in enumerate(evidence):
            weights[line, : curves.levels[row]] = report_weights(score, curves.levels[row])
        tables = curves.probabilities[[row for row, _ in evidence]]
        likelihoods = np.matmul(weights[:, None, :], tables)[:, 0, :]
        # In logarithms, so that a long interview cannot underflow to a posterior of zeros.
        log_posterior = np.log(likelihoods).sum(axis=0) - GRID**2 / 2
        posterior = np.exp(log_posterior - log_posterior.max())
        return cls(posterior / posterior.sum(), len(evidence))

    def ability(self) -> Ability:
        """The mean and standard deviation of the posterior (expected a posteriori)."""
        theta = float(self.weights @ GRID)
        variance = float(self.weights @ (GRID - theta) ** 2)
        return Ability(Logits(theta), math.sqrt(variance), self.answers)


def _boundaries(discrimination: float, thresholds: Sequence[float], thetas: Floats) -> Floats:
    edges: Floats = np.array([-math.inf, *thresholds, math.inf])
    x: Floats = discrimination * (thetas[None, :] - edges[:, None])
    return x


def _logistic(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))
