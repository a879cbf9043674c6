"""Training a windowed student against its full-attention teacher."""
