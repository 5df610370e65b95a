"""The bidirectional language model in PyTorch and its training with Lightning."""

from _biloom import use_own_packages

use_own_packages()
