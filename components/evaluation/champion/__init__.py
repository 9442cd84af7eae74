"""Whether a model becomes the champion, and what is kept of champions."""
