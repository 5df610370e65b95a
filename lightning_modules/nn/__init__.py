"""The network in pure torch: one device, float32, no knowledge of training loops or files.

Direction 0 reads forward, 1 backward. The backward stream arrives already reversed in time, so
both directions are one recurrence with two sets of weights and run as one batched matmul.
"""
