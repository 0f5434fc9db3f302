"""What the figures must reach, computed from raw samples by scripts that import nothing of ours."""
