"""What is measured: forecasts of held-out trials, runs, benchmarks, comparisons."""
