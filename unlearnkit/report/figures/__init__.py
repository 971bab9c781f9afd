"""The study's figures; `figure.data` is the frame that each shows.

Common parameters: `forget`, a forget set of the study, and `attack`, a measured one (the study's
own if left out); `reading`, how σ is pooled, one of `unlearnkit.names.READINGS`. With
`column=True` every figure is drawn 3.3 inches wide, for a column of a page, not 7. Its `alt` says
in words what is seen. The data of Figures 1, 2 and 4 hold mean, low, high (minimum and maximum),
std and n over seeds. A study that lacks all that a figure shows raises `NothingToDraw`.
"""

from unlearnkit.report.figures.curves import robustness, sweep
from unlearnkit.report.figures.images import adversarial_strip, embedding, samples
from unlearnkit.report.figures.layers import fairness_gap, sigma_by_class
from unlearnkit.report.figures.membership import roc
from unlearnkit.report.figures.points import conjectures, layerwise, tradeoff
from unlearnkit.report.figures.verdicts import forest

__all__ = ["adversarial_strip", "conjectures", "embedding"]
__all__ += ["fairness_gap", "forest", "layerwise", "robustness", "roc", "samples"]
__all__ += ["sigma_by_class", "sweep", "tradeoff"]
