"""Times these layers beside what one would use instead: `python -m benchmarks`."""
