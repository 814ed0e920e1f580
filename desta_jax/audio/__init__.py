"""Sound: loading and resampling on the host, the log-mel spectrogram on the device, voice activity."""
