"""The recurrent stack, its LSTM and GRU layers, and their compiled cells."""
