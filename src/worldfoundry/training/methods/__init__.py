"""The training methods, one file each: what a step of each kind of model computes. Only these files touch model rooms."""
