"""CosyVoice 2: text and a reference to speech, on torch and transformers alone."""
