"""A trained model in forms that run without biloom: torch.export and ONNX."""
