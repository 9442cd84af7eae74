"""The MLP approach, in Keras."""
