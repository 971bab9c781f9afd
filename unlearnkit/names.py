"""Names that computing and reading results share."""

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
