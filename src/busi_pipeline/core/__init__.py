"""Networks and their training on any backend of Keras 3: no Kedro, no TensorFlow, no files."""
