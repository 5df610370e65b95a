"""Make a trained model smaller without training: fewer layers, a low-rank input matrix, fewer ids."""
