"""What many runs say together: statistics whose unit is a training run."""
