"""Training of a windowed student against its full-attention teacher."""
