"""Computing a study: profiles, stages, the store, workers, sweeps."""
