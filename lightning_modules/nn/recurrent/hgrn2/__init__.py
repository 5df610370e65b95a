"""The HGRN2 layer: its weights, its recurrence over a window, and the recurrence as C++ for a CPU."""
