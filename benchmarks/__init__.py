"""What a decoding step costs with and without the window, side by side: ``python -m benchmarks``."""
