"""Tests: `unit` without training, `integration` with whole runs; made of what `factories` makes."""

import os

# Before NumPy and scikit-learn are imported: on a busy machine their threads wait for each other by
# turning in circles, which makes some tests ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
