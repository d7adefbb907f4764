"""Synthetic breast ultrasound, for the demo and the tests.

    python -m busi_pipeline.synthetic data/demo/01_raw

The pictures have the statistics of ultrasound, not its content: nothing learned from them says
anything about patients.
"""

from .demo import write_demo, write_synthetic_set
from .scans import Scan, simulate_scan

__all__ = ["Scan", "simulate_scan", "write_demo", "write_synthetic_set"]
