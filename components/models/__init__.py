"""Hyperparameters become an ONNX model."""
