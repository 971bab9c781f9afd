"""Names that computing and reading results share, and what a forget set is called."""

import re
from collections.abc import Sequence

# What tells the models of a study from each other
ID = ["architecture", "forget", "method", "scope", "seed", "progress"]
# The average gap is over these.
GAP_METRICS = ["UA", "RA", "TA", "MIA"]
# How σ is pooled: see `fairness.class_sigma`.
READINGS = ("std", "variance", "channel_std", "trimmed_std")
# Groups of layers: see `scopes.scope_modules`.
SCOPES = ("all", "first", "intermediate", "last", "intermediate+last")
# Folder, inside that of a study's results, of its models with fairness-gaps set by hand
INTERVENTIONS = "interventions"
# And of the margins of many models
MEMBERSHIP = "membership"


def forget_title(forget: str, classes: Sequence[str]) -> str:
    """Return ``10 % random`` for ``random:0.1``, and ``class cat`` for ``class:cat`` or its number.

    `classes` are the data set's names in order. A name comes before a number, as in `data.splits`.
    """
    kind, _, value = (part.strip() for part in str(forget).partition(":"))
    if kind == "random" and re.fullmatch(r"\d*\.?\d+", value):
        return f"{100 * float(value):g} % random"
    if value not in classes and value.isdecimal() and int(value) < len(classes):
        value = classes[int(value)]
    return f"{kind} {value}".strip()
