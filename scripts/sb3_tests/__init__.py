"""What scripts/run_sb3_tests.py is made of: Stable-Baselines3's and sb3-contrib's own tests on our algorithms."""
