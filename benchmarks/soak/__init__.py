"""Randomized writes whose processes die, and a count of the rows that were lost or doubled.

``python -m benchmarks.soak --runs 200 --seed 7``: every run draws a store, a dataset, a kind of
write and faults with their moments from the seed, injects them into real processes, and compares
what stands with a model. The plan is reproducible, the timing is not. Exit code 1 if a row was
lost or doubled, a dataset could not be read, or a write hung or raised what is no error of ours.
"""
