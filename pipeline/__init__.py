"""The command line, the stages, and all code that uses Beam."""

from _biloom import use_own_packages

use_own_packages()
