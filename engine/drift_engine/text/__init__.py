"""Between people's text and the model's tokens: encoding, chat templates, incremental decoding, stop strings.

Everything here is free of torch and of HTTP; the api package is its only caller.
"""
