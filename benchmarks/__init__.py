"""Speed of the parts, each measured side by side with what it is compared to: `python -m benchmarks`."""
