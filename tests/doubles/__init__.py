"""Stand-ins for what tests can't have: a small CLIP with random weights, HailoRT's Python package."""
