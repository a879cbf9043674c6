"""Acoustic building blocks that several systems share: ConvNeXt, perceiver, quantizers, snakes, mel spectra.

Parameter names are those of the published checkpoints, so that their state dicts load strictly.
"""
