"""What a worker does with a study."""
