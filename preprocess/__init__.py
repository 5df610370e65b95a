"""Reading, cleaning, tokenising and storing text, without Beam and torch."""

from _biloom import use_own_packages

use_own_packages()
