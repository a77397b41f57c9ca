"""Demonstrations in the files of others, Minari's, ManiSkill's and robomimic's, and how ours are stored."""
