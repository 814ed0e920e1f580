"""Self-generated training data: metadata to descriptions, instructions, the model's own responses, AQA rows."""
