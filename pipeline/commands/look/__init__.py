"""The command `look`: what an input contains, and what it costs to prepare it."""
