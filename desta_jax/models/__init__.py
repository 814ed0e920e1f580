"""Whisper encoder, Q-Former connector and Llama-family decoder, and the audio language model that joins them."""
