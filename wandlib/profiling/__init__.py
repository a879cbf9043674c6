"""What decoding costs, on paper and measured."""
