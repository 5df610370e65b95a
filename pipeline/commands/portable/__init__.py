"""The command `export-onnx`."""
