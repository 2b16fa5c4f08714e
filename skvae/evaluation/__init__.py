"""How good synthetic rows are, beside what real rows would get."""

from skvae.evaluation.evaluation import Evaluation, Measure, evaluate

__all__ = ["Evaluation", "Measure", "evaluate"]
