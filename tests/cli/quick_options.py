"""Options with which fine-tuning takes a second."""

FAST = ["--head-epochs", 1, "--epochs", 1, "--views", 1, "--size", 32, "--unfreeze", "all"]
