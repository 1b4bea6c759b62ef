"""ONNX Runtime as a target: sessions, what it fuses into integer kernels, and where nodes really run."""
