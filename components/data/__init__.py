"""A source becomes `train_data` and `test_data`."""
