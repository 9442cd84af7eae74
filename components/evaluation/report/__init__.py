"""The report of a run is one self-contained page."""
