"""p(x, z) and what it is made of: knows tensors only."""
