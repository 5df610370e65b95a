"""The network in plain PyTorch. It knows nothing of training loops, several devices or files.

Direction 0 reads forward, direction 1 backward. The input of direction 1 is already reversed in
time, so both directions are the same recurrence with separate weights and run as one batched matmul.
"""
