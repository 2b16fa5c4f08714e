"""Training: the loop, one gradient step, products and threads."""
