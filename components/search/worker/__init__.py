"""A worker claims the trials of a study and trains them."""
