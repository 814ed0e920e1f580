"""DeSTA-AQA5M as a TensorFlow Datasets dataset; importing the builder module registers it."""
