"""This package decides whether a model becomes the champion, and keeps the champions."""
