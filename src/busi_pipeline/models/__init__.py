"""Networks: backbones, the classifier in two parts, what is built around it."""
