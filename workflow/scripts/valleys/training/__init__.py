"""Training: schedules, SGD that survives being stopped, iterates, averages, paths of low loss; no probing."""
