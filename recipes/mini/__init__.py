"""The embedded voice: corpus, codec, vocoder, aligner, teacher. `make mini` runs the stages in order; each resumes."""
