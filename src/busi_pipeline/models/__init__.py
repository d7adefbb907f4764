"""Networks: backbones, the classifier in two pieces, what is built around it."""
