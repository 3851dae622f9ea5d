"""Ways to do a thing side by side, judged against the truth: for the README's tables, never for a run."""
