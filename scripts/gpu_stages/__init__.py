"""What scripts/gpu_evidence.py is made of: stages, their tables, and what they need."""
