"""Tests of CosyVoice 2; a package, so that its helpers have names of their own."""
