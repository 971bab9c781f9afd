"""Computing a study: profiles, stages, the store, sweeps."""

from unlearnkit.study.lab import load_data
from unlearnkit.study.profile import load_profile
from unlearnkit.study.run import run_study

__all__ = ["load_data", "load_profile", "run_study"]
