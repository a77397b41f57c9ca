"""Limits and settings that hold for every test."""

import os

# Before torch is imported, for it and for processes that tests start: several single-threaded
# processes finish sooner than one that competes with them for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import settings

torch.set_num_threads(1)

# Examples are chosen from the test's own source, so that a failure repeats; a busy machine is no
# reason to fail.
settings.register_profile("difftori_gym", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("difftori_gym")
