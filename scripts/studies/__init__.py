"""What scripts/evidence.py is made of: studies of runs, their queue, their tables."""
