"""Language models whose plain vocabulary holds a codec's tokens, where transformers has the whole path.

NeuTTS (Qwen2 and NeuCodec) and Llasa (Llama and X-codec 2): stock models, nothing of them is changed.
"""
