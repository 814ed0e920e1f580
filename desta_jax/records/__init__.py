"""Every byte of training data on disk: what a record holds, how records are written, indexed, read and checked."""
