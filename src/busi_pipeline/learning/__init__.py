"""Training data, batches, fitting, features: what turns images and settings into a network."""
