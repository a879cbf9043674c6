"""Costs of decoding, computed and measured."""
