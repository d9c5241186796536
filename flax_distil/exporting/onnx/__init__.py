"""ONNX graphs of Whisper in the layout that Transformers.js and Optimum load."""
