"""What to try next: suggestions from a study's history."""
