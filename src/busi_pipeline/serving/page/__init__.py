"""The page of a second reader: what the reader says first, then what the model says."""
