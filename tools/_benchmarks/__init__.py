"""Benchmarks of tools/benchmark.py: each does the same work in two ways, ours and a rival's, in one run."""
