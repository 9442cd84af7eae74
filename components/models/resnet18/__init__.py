"""The ResNet18 approach, in torch."""
